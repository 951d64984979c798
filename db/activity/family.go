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

// usedNames are the names of the sessions that one role has in one database.
type usedNames struct {
	sessions map[string]int // by name
	stems    map[string]int // names that begin so
	small    int            // names of at most familySize sessions, without those of a family
}

// families maps sessions to the name by which they are judged together. Names of the configured application stay
// unchanged.
type families struct {
	application string
	of          map[roleIn]*usedNames
}

func familiesOf(s Snapshot) families {
	f := families{s.Application, map[roleIn]*usedNames{}}
	for _, x := range s.clients(f.mayDiffer) {
		r := roleIn{x.User, x.Database}
		if f.of[r] == nil {
			f.of[r] = &usedNames{sessions: map[string]int{}, stems: map[string]int{}}
		}
		f.of[r].sessions[x.Application]++
	}
	for _, p := range f.of {
		for name := range p.sessions {
			p.stems[stem(name)]++
		}
		for name, n := range p.sessions {
			if n <= familySize && !p.haveStem(name) {
				p.small++
			}
		}
	}
	return f
}

func (f families) mayDiffer(x Session) bool {
	return x.Application != "" && !x.Self && !belongs(x.Application, f.application)
}

// haveStem reports whether the name belongs to a family by its beginning.
func (p *usedNames) haveStem(name string) bool {
	s := stem(name)
	return p != nil && len(s) >= leastStem && p.stems[s] >= familyNames
}

// alone reports whether all sessions of the role belong to one program that has a name for each process.
func (p *usedNames) alone() bool { return p != nil && p.small == len(p.sessions) }

// name returns the name by which the session is judged: its application, the stem of a family with *, or its role.
func (f families) name(x Session) string {
	if !f.mayDiffer(x) {
		return x.Who()
	}
	switch p := f.of[roleIn{x.User, x.Database}]; {
	case p.haveStem(x.Application):
		return stem(x.Application) + anyName
	case p != nil && p.small >= roleNames && p.sessions[x.Application] <= familySize:
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
