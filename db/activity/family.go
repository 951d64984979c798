package activity

import (
	"regexp"
	"strings"
)

// Programs that put a number, a process or a job into their application_name have a different name for each process.
// They are judged together, as a family: by the common beginning of the names, or by their role.

const (
	familyNames = 3 // so many names with one beginning are a family
	roleNames   = 5 // so many names of one role, with at most familySize sessions each, are one program
	familySize  = 2
	leastStem   = 2 // letters
)

// differs matches the beginning of the part of a name that differs from process to process: a separator, a number, or
// an identifier of at least eight hexadecimal digits, such as a UUID.
var differs = regexp.MustCompile(`/|:| - |[0-9]|\b[0-9a-fA-F]{8}`)

// stem returns the beginning of a name, before that part.
func stem(name string) string {
	if at := differs.FindStringIndex(name); at != nil {
		name = name[:at[0]]
	}
	return strings.TrimRight(name, " -_.#[(")
}

type roleIn struct{ user, database string }

type stemOf struct {
	roleIn
	stem string
}

// families maps sessions to the name by which they are judged together. Names of the configured application stay
// unchanged.
type families struct {
	application string
	sessions    map[roleIn]map[string]int // by name
	stems       map[stemOf]bool           // stems that are a family's
	roles       map[roleIn]bool           // roles whose sessions each have a different name
	alone       map[roleIn]bool           // roles that also have no other sessions
}

func familiesOf(s Snapshot) families {
	f := families{
		application: s.Application, sessions: map[roleIn]map[string]int{},
		stems: map[stemOf]bool{}, roles: map[roleIn]bool{}, alone: map[roleIn]bool{},
	}
	for _, x := range s.clients(func(x Session) bool { return !x.Self && f.mayDiffer(x) }) {
		r := roleIn{x.User, x.Database}
		if f.sessions[r] == nil {
			f.sessions[r] = map[string]int{}
		}
		f.sessions[r][x.Application]++
	}
	for r, names := range f.sessions {
		f.addStems(r, names)
		f.addRole(r, names)
	}
	return f
}

func (f families) mayDiffer(x Session) bool {
	return x.Application != "" && !belongs(x.Application, f.application)
}

func (f families) addStems(r roleIn, names map[string]int) {
	n := map[string]int{}
	for name := range names {
		n[stem(name)]++
	}
	for s, of := range n {
		if of >= familyNames && len(s) >= leastStem {
			f.stems[stemOf{r, s}] = true
		}
	}
}

func (f families) addRole(r roleIn, names map[string]int) {
	small := 0
	for name, n := range names {
		if n <= familySize && !f.stems[stemOf{r, stem(name)}] {
			small++
		}
	}
	f.roles[r] = small >= roleNames
	f.alone[r] = small == len(names)
}

// of returns the name by which the session is judged: its application, the stem of a family with *, or its role.
func (f families) of(x Session) string {
	r := roleIn{x.User, x.Database}
	switch {
	case !f.mayDiffer(x):
		return x.Who()
	case f.stems[stemOf{r, stem(x.Application)}]:
		return stem(x.Application) + anyName
	case f.roles[r] && f.sessions[r][x.Application] <= familySize:
		return "user " + x.User
	}
	return x.Who()
}

// anyName ends a name in a Filter that stands for all names with this beginning.
const anyName = "*"

// named reports whether a session's application_name matches the requested one: the name itself, the name followed by a
// slash and more, or, if it ends in *, any name with that beginning.
func named(name, asked string) bool {
	if begin, is := strings.CutSuffix(asked, anyName); is {
		return strings.HasPrefix(name, begin)
	}
	return belongs(name, asked)
}
