package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// helpWidth is the width of a small terminal, such as a console in an outage.
const helpWidth = 80

// fitHelp limits the flags in the help of the command and its subcommands to helpWidth; their texts are written so.
func fitHelp(root *cobra.Command) {
	root.SetUsageTemplate(strings.NewReplacer(
		"LocalFlags.FlagUsages", "LocalFlags.FlagUsagesWrapped 80",
		"InheritedFlags.FlagUsages", "InheritedFlags.FlagUsagesWrapped 80",
	).Replace(root.UsageTemplate()))
}

// item returns an item of a list: after its name the text, wrapped and indented.
func item(name, text string) string {
	return name + strings.Join(wrap(text, helpWidth-len(name)), "\n"+strings.Repeat(" ", len(name))) + "\n"
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
