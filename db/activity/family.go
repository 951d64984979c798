package activity

import (
	"cmp"
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

type nameOf struct {
	roleIn
	application string
}

// families know the name by which sessions are judged together. Names of the configured application stay unchanged.
type families struct {
	names map[nameOf]string // of those that have another name than Session.Who
	alone map[roleIn]bool   // all sessions of the role belong to one program that has a name for each process
}

func familiesOf(s Snapshot) families {
	sessions := map[roleIn]map[string]int{} // by application
	for _, x := range s.clients(func(x Session) bool { return x.Application != "" && !x.Self && !belongs(x.Application, s.Application) }) {
		if sessions[x.role()] == nil {
			sessions[x.role()] = map[string]int{}
		}
		sessions[x.role()][x.Application]++
	}
	f := families{map[nameOf]string{}, map[roleIn]bool{}}
	for role, byName := range sessions {
		f.add(role, byName)
	}
	for _, x := range s.own() {
		f.alone[x.role()] = false
	}
	return f
}

// add finds the families among the names that one role has in one database.
func (f families) add(role roleIn, sessions map[string]int) {
	stems := map[string]int{}
	for name := range sessions {
		stems[stem(name)]++
	}
	var small []string // names of at most familySize sessions, without those of a family
	for name, n := range sessions {
		if s := stem(name); len(s) >= leastStem && stems[s] >= familyNames {
			f.names[nameOf{role, name}] = s + anyName
		} else if n <= familySize {
			small = append(small, name)
		}
	}
	f.alone[role] = len(small) == len(sessions)
	for _, name := range small {
		if len(small) >= roleNames {
			f.names[nameOf{role, name}] = "user " + role.user
		}
	}
}

func (s Session) role() roleIn { return roleIn{s.User, s.Database} }

// namesOf returns the set of the sessions' names.
func (f families) namesOf(sessions []Session) map[string]bool {
	names := map[string]bool{}
	for _, s := range sessions {
		names[f.name(s)] = true
	}
	return names
}

// name returns the name by which the session is judged: its application, the stem of a family with *, or its role.
func (f families) name(x Session) string {
	return cmp.Or(f.names[nameOf{x.role(), x.Application}], x.Who())
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
