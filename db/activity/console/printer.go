// Package console writes the values of package activity for a person at a terminal, perhaps during an outage: aligned,
// in few lines, no wider than the terminal, and with colour only on a terminal. No text that a session supplies reaches
// the terminal as a control sequence.
//
// The package does not depend on flags, files, or connections.
package console

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/charmbracelet/x/ansi" // text widths in terminal cells; the full screen needs it anyway

	"ddtb/db/activity"
)

// Printer is the output of this package.
type Printer struct {
	W      io.Writer
	Width  int // of a line, in cells; 0: no bound
	Colour bool
}

// JSON writes any value of package activity.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// line writes one line, clipped to the width.
func (p Printer) line(format string, args ...any) {
	s := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	if p.Width > 0 {
		s = ansi.Truncate(s, p.Width, "…")
	}
	_, _ = fmt.Fprintln(p.W, s)
}

// Wrapped writes text over as many lines as necessary. Each begins with indent, and the first with first.
func (p Printer) Wrapped(first, text string) {
	indent := ansi.StringWidth(first)
	width := 1 << 16
	if p.Width > 0 {
		width = max(20, p.Width-indent)
	}
	for i, l := range Words(text, width) {
		if i > 0 {
			first = strings.Repeat(" ", indent)
		}
		_, _ = fmt.Fprintln(p.W, strings.TrimRight(first+l, " "))
	}
}

// paragraph writes a blank line and the text.
func (p Printer) paragraph(text string) {
	p.line("")
	p.Wrapped("", text)
}

// Lines writes text as it is laid out, but splits a line that is too wide between words, and keeps its indent.
func (p Printer) Lines(text string) {
	text = strings.Map(visible, text) // also for a pipe: it may lead to a terminal
	if p.Width == 0 {
		_, _ = io.WriteString(p.W, text)
		return
	}
	for line := range strings.SplitAfterSeq(text, "\n") {
		bare := strings.TrimSuffix(line, "\n")
		if ansi.StringWidth(bare) > p.Width {
			indent := bare[:len(bare)-len(strings.TrimLeft(bare, " "))]
			parts := Words(bare, max(20, p.Width-len(indent)))
			line = indent + strings.Join(parts, "\n"+indent) + line[len(bare):]
		}
		_, _ = io.WriteString(p.W, line)
	}
}

// visible replaces a character that a terminal would act on, except for a line break.
func visible(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case r == '\n' || unicode.IsPrint(r):
		return r
	}
	return '·'
}

// Words splits text at spaces, but not within `backticks`: a command stays on one line, ready to be typed, if the line
// is wide enough.
func Words(text string, width int) (lines []string) {
	line := ""
	for _, w := range fields(text, width) {
		if line != "" && ansi.StringWidth(line)+1+ansi.StringWidth(w) <= width {
			line += " " + w
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		line = w
		for ansi.StringWidth(line) > width {
			lines = append(lines, ansi.Cut(line, 0, width))
			line = ansi.Cut(line, width, ansi.StringWidth(line))
		}
	}
	return append(lines, line)
}

// fields returns the words of a text; a command in backticks that fits on a line is one word.
func fields(text string, width int) (out []string) {
	open := false
	for _, w := range strings.Fields(text) {
		if last := len(out) - 1; open && ansi.StringWidth(out[last])+1+ansi.StringWidth(w) <= width {
			out[last] += " " + w
		} else {
			out = append(out, w)
		}
		open = open != (strings.Count(w, "`")%2 == 1)
	}
	return out
}

// command writes a command to be copied: never clipped, never wrapped.
func (p Printer) command(indent, command string) {
	_, _ = fmt.Fprintln(p.W, indent+p.styled(bold, command))
}

type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	turned style = "7" // foreground and background are swapped
)

func (p Printer) styled(s style, text string) string {
	if !p.Colour || s == plain {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

func styleOf(l activity.Level) style {
	return []style{green, yellow, red, yellow}[l]
}

// Clean removes characters that a terminal would act on: escapes, line breaks, and marks that change the direction of
// writing.
func Clean(s string) string { return strings.Map(visible, strings.Join(strings.Fields(s), " ")) }

// column is a column of a table. Its cells are aligned; those of the last column are not padded.
type column struct {
	title string
	right bool
	least int  // cells
	most  int  // cells; 0: no bound
	gives bool // if the table is too wide, it shrinks down to its title
}

// named returns a table's first column, and a column of figures for each further title.
func named(title string, figures ...string) []column {
	all := []column{{title: title, least: 32, most: 40, gives: true}}
	for _, f := range figures {
		all = append(all, column{title: f, right: true})
	}
	return all
}

// table writes rows under titles, with two spaces between columns.
func (p Printer) table(columns []column, rows [][]string) {
	p.tableWith(columns, rows, -1)
}

// tableWith is table with one highlighted row.
func (p Printer) tableWith(columns []column, rows [][]string, chosen int) {
	widths := p.widths(columns, rows)
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	p.line("%s", p.styled(dim, row(columns, widths, titles)))
	for i, r := range rows {
		text := row(columns, widths, r)
		if i == chosen && p.Colour {
			text = ansi.Truncate(ansi.Strip(text), p.Width, "…")
			text = p.styled(turned, text+strings.Repeat(" ", max(0, p.Width-ansi.StringWidth(text))))
		}
		p.line("%s", text)
	}
}

// widths returns the widths of the columns, reduced to fit the line if possible.
func (p Printer) widths(columns []column, rows [][]string) []int {
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = max(c.least, ansi.StringWidth(c.title))
		for _, r := range rows {
			widths[i] = max(widths[i], ansi.StringWidth(r[i]))
		}
		if c.most > 0 {
			widths[i] = min(widths[i], c.most)
		}
	}
	for over := p.over(columns, widths); over > 0; over-- {
		widest := -1
		for i, c := range columns {
			if c.gives && widths[i] > ansi.StringWidth(c.title) && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// over returns by how much a table is too wide. Free text in a last column is clipped anyway.
func (p Printer) over(columns []column, widths []int) int {
	if p.Width == 0 {
		return 0
	}
	total := -2
	for i, w := range widths {
		if last := i == len(columns)-1; last && !columns[i].right {
			w = min(w, leastText)
		}
		total += w + 2
	}
	return total - p.Width
}

// leastText is the least width of a last column of free text, if other columns can shrink.
const leastText = 10

func row(columns []column, widths []int, cells []string) string {
	out := make([]string, len(cells))
	for i, c := range columns {
		text := ansi.Truncate(cells[i], widths[i], "…")
		fill := strings.Repeat(" ", widths[i]-ansi.StringWidth(text))
		switch {
		case c.right:
			text = fill + text
		case i < len(columns)-1:
			text += fill
		}
		out[i] = text
	}
	return strings.Join(out, "  ")
}

// bar shows the used slots, the free ones, and a mark where the reserved ones begin.
func (p Printer) bar(s activity.Slots, level activity.Level, width int) string {
	cells := func(n int) int { return min(width, max(0, n)*width/max(1, s.Max)) }
	used := cells(s.Used)
	if s.Used > 0 {
		used = max(1, used)
	}
	usable := max(used, cells(s.Usable()))
	return "[" + p.styled(styleOf(level), strings.Repeat("#", used)) +
		strings.Repeat(".", usable-used) + strings.Repeat("-", width-usable) + "]"
}
