package console

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"ddtb/db/activity"
)

// View is part of tea.Model.
func (s *screen) View() tea.View {
	v := tea.NewView(s.content())
	v.AltScreen = true
	v.WindowTitle = "ddtb db-connections monitor"
	return v
}

// content returns as many lines as the terminal has.
func (s *screen) content() string {
	var b bytes.Buffer
	p := Printer{W: &b, Width: s.width, Colour: s.Colour}
	s.head(p)
	above := strings.Count(b.String(), "\n")
	s.rowsShown = max(1, s.height-above-3) // the titles, a blank line and the foot
	s.body(p)
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	foot := s.foot(p)
	lines = append(lines, make([]string, s.height)...)[:max(0, s.height-len(foot))] // the foot stays at the bottom
	return strings.Join(append(lines, foot...), "\n")
}

func (s *screen) head(p Printer) {
	seen := !s.now.At.IsZero()
	if seen {
		p.line("PostgreSQL %s at %s, database %s, as %s   %s", Clean(s.now.Server.Version), Clean(s.now.Server.Address),
			Clean(s.now.Database), Clean(s.now.Role.Name), s.now.At.Local().Format("15:04:05"))
	} else {
		p.line("ddtb db-connections monitor")
	}
	if s.last.Err != nil {
		p.line("%s", p.styled(red, "No answer: "+Clean(s.last.Err.Error())+"; trying again"))
	} else if !seen {
		p.line("Connecting …")
	}
	if seen {
		s.figures(p)
	}
}

// figures writes the last figures; of the slots, those of the last poll that succeeded.
func (s *screen) figures(p Printer) {
	l, a := s.now.Slots, s.last.Sample
	level := s.Thresholds.OfSlots(l)
	p.line("Slots %s %s", p.bar(l, level, max(10, min(40, s.width-46))), p.brief(l, level))
	if s.last.Err != nil {
		return
	}
	p.line("      %s  new %.1f/s%s", inStates(a), a.NewPerSecond, notVisible(a))
	p.line("Past  %s", history(s.history, max(10, s.width-8)))
	text := Words(verdict(a), max(20, s.width))
	for _, l := range text[:min(2, len(text))] { // the blocker comes late in its sentence
		p.line("%s", p.styled(styleOf(a.Level), l))
	}
}

// history draws one cell for each of the last values, in percent; values above 100 are drawn as 100.
func history(values []float64, width int) string {
	const steps = "▁▂▃▄▅▆▇█"
	cells := []rune(steps)
	var b strings.Builder
	for _, v := range values[max(0, len(values)-width):] {
		b.WriteRune(cells[min(len(cells)-1, max(0, int(v*float64(len(cells))/100)))])
	}
	return b.String()
}

// sessions writes the rows around the selected one.
func (s *screen) sessions(p Printer) {
	all := s.rows()
	at := s.cursor(all)
	from := min(max(0, at-s.rowsShown/2), max(0, len(all)-s.rowsShown))
	rows, blocks := [][]string{}, s.now.Blocks()
	for i, x := range all[from:min(len(all), from+s.rowsShown)] {
		mark := " "
		if from+i == at {
			mark = ">"
		}
		if s.isMarked(x) {
			mark += "*"
		}
		cells := []string{
			mark, fmt.Sprint(x.PID), Clean(x.Application), Clean(x.User) + "@" + Clean(x.Database), Clean(x.ClientAddress()),
			p.styled(styleOfState(x, blocks), state(x)), age(x.InState), Clean(x.Query),
		}
		rows = append(rows, fitting(s.width, cells))
	}
	p.tableWith(fitting(s.width, []column{
		{title: "  "},
		{title: "pid", right: true},
		{title: "application", least: 12, most: max(12, s.width/5)},
		{title: "user", most: max(8, s.width/6)},
		{title: "client", most: 21, gives: true},
		{title: "state", most: 22},
		{title: "for", right: true},
		{title: "last query"},
	}), rows, at-from)
}

// fitting leaves the user out on a narrow terminal, where the query is more useful.
func fitting[T any](width int, cells []T) []T {
	const user = 3
	if width >= 100 {
		return cells
	}
	return slices.Delete(cells, user, user+1)
}

// styleOfState is more prominent the more urgent a session's state is.
func styleOfState(x activity.Session, blocks map[int32]bool) style {
	switch {
	case blocks[x.PID]:
		return red
	case x.Waits, x.InTransactionIdle():
		return yellow
	case x.State == activity.Idle, x.Self, x.Hidden:
		return dim
	}
	return plain
}

// state also names what a session waits for.
func state(x activity.Session) string {
	switch {
	case x.Self:
		return "this monitor"
	case x.Hidden:
		return "(not visible)"
	case len(x.BlockedBy) > 0:
		return fmt.Sprintf("waits for %s", list(x.BlockedBy, 1))
	}
	return Clean(x.State)
}

// foot returns the lines at the bottom. A question has as many as it needs, since it names what ends; the rest is cut.
func (s *screen) foot(p Printer) (lines []string) {
	if s.question == nil {
		return []string{ansi.Truncate(s.footLine(p), s.width, "…")}
	}
	for _, line := range Words(s.question.text, max(20, s.width)) {
		lines = append(lines, p.styled(bold, line))
	}
	return lines
}

// footLine returns the filter being typed, the last result, or the keys.
func (s *screen) footLine(p Printer) string {
	switch {
	case s.typing:
		return "Filter: " + Clean(s.filter) + "▏  enter keeps it, esc drops it"
	case s.message != "":
		return p.styled(bold, s.message)
	}
	text := "? help  q quit  c cancel  t terminate  space mark  enter details  l locks  / filter  s sort: " + orders[s.sort].name
	if s.page != sessions {
		text = "esc back  " + text
	}
	if len(s.marked) > 0 {
		text = fmt.Sprintf("%d marked (esc drops them)  ", len(s.marked)) + text
	}
	if s.filter != "" {
		text = "filter: " + Clean(s.filter) + " (esc drops it)  " + text
	}
	return p.styled(dim, ansi.Truncate(text, max(1, s.width), "…"))
}
