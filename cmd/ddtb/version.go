package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker: see the Makefile.
var version = "devel"

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, and those of what it is made of",
		Run: func(*cobra.Command, []string) {
			c.say("ddtb %s, %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			info, ok := debug.ReadBuildInfo()
			if !ok || !c.verbose {
				return
			}
			for _, m := range info.Deps {
				c.say("  %s %s\n", m.Path, m.Version)
			}
		},
	}
}
