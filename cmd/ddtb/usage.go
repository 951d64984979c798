package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ddtb/config"
	"ddtb/db/activity/console"
)

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// checkArguments lets the command and its subcommands accept the arguments that they name, unless they have another rule.
func checkArguments(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		checkArguments(sub)
	}
	switch {
	case cmd.Args != nil:
	case cmd.HasSubCommands():
		cmd.Args = noCommand
	default:
		cmd.Args = asInUse
	}
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

// asInUse accepts the arguments that the command's Use line names. Those in brackets may be missing.
func asInUse(cmd *cobra.Command, args []string) error {
	names := strings.Fields(cmd.Use)[1:]
	switch {
	case len(args) > len(names) && len(names) == 0:
		return fmt.Errorf("%s takes no argument, and got %q", cmd.Name(), args[0])
	case len(args) > len(names):
		return fmt.Errorf("%s takes %s, and got %q as well", cmd.Name(), strings.Join(names, " "), args[len(names)])
	case len(args) < len(names) && !strings.HasPrefix(names[len(args)], "["):
		return fmt.Errorf("%s needs %s", cmd.Name(), names[len(args)])
	}
	return nil
}

// flagError says what is wrong with a flag, and what to type.
func flagError(cmd *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return unknownFlag(cmd, e)
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return fmt.Errorf("--%s needs a value: %s", e.GetFlag().Name, e.GetFlag().Usage)
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return fmt.Errorf("--%s %q: %s", e.GetFlag().Name, ansi.Truncate(e.GetValue(), 40, "…"), expected(e))
	}
	if e, ok := errors.AsType[*pflag.InvalidSyntaxError](err); ok {
		return fmt.Errorf("%q is no flag: write --NAME or --NAME=VALUE", ansi.Truncate(e.GetSpecifiedFlag(), 40, "…"))
	}
	return err
}

func unknownFlag(cmd *cobra.Command, e *pflag.NotExistError) error {
	given, name := "--"+e.GetSpecifiedName(), e.GetSpecifiedName()
	if short := e.GetSpecifiedShortnames(); short != "" {
		given, name = "-"+short, short
	}
	err := fmt.Errorf("there is no flag %s", ansi.Truncate(given, 40, "…"))
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := config.Nearest(name, names); near != "" {
		err = fmt.Errorf("%w: did you mean --%s?", err, near)
	}
	return err
}

// expected says which values a flag takes.
func expected(e *pflag.InvalidValueError) string {
	kind := e.GetFlag().Value.Type()
	switch {
	case errors.Is(e, strconv.ErrRange):
		return "the number is too large"
	case slices.Contains([]string{"int", "int32"}, kind):
		return "write a whole number"
	case kind == "bool":
		return fmt.Sprintf("write --%[1]s, or --%[1]s=false", e.GetFlag().Name)
	}
	return e.Unwrap().Error()
}

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
