package main

import (
	"strings"

	"github.com/spf13/cobra"

	"ddtb/db/activity/console"
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
	return name + strings.Join(console.Words(text, helpWidth-len(name)), "\n"+strings.Repeat(" ", len(name))) + "\n"
}
