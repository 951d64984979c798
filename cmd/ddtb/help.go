package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// helpWidth is the width of a small terminal, such as a console in an outage.
const helpWidth = 80

// fitHelp limits the help of the command and its subcommands to helpWidth.
func fitHelp(root *cobra.Command) {
	cobra.AddTemplateFunc("fit", fit)
	root.SetUsageTemplate(strings.NewReplacer(
		"LocalFlags.FlagUsages", "LocalFlags.FlagUsagesWrapped 80",
		"InheritedFlags.FlagUsages", "InheritedFlags.FlagUsagesWrapped 80",
	).Replace(root.UsageTemplate()))
	root.SetHelpTemplate(`{{with (or .Long .Short)}}{{. | fit}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}`)
}

// fit rewraps paragraphs. A line that begins with spaces is a list item: its continuation is indented to its text.
func fit(text string) string {
	var out []string
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		var lines []string
		for line := range strings.SplitSeq(paragraph, "\n") {
			if n := len(lines); n > 0 && !strings.HasPrefix(line, " ") && !strings.HasPrefix(lines[n-1], " ") && !strings.HasSuffix(lines[n-1], ":") {
				lines[n-1] += " " + line
			} else {
				lines = append(lines, line)
			}
		}
		for i, line := range lines {
			lines[i] = broken(line, hanging(line))
		}
		out = append(out, strings.Join(lines, "\n"))
	}
	return strings.Join(out, "\n\n")
}

// hanging returns where a list item's text begins: after its last run of two spaces.
func hanging(line string) int {
	if !strings.HasPrefix(line, " ") {
		return 0
	}
	if i := strings.LastIndex(line, "  "); i >= 0 && i < helpWidth/2 {
		return i + 2
	}
	return 2
}

func broken(line string, indent int) string {
	if utf8.RuneCountInString(line) <= helpWidth {
		return line
	}
	begin := len(line) - len(strings.TrimLeft(line[indent:], " "))
	done, rest := line[:begin], strings.Fields(line[begin:])
	column := utf8.RuneCountInString(done)
	for i, word := range rest {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > helpWidth:
			done += "\n" + strings.Repeat(" ", indent)
			column = indent
		default:
			done += " "
			column++
		}
		done += word
		column += n
	}
	return done
}

// noCommand rejects an argument in place of a subcommand, and suggests the nearest one.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, " or "))
	}
	return err
}
