package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// mentioned is a command in a text. Commands with subcommands are mentioned with one.
var mentioned = regexp.MustCompile(`\bddtb (?:(?:db-connections|config|lab) \S*\w|[a-z]+)`)

func TestEveryCommandThatAMailOrAnAlertAdvisesExists(t *testing.T) {
	for _, file := range []string{"../../app/report/mail.txt", "../../config/monitoring/alerts.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all := mentioned.FindAllString(string(text), -1)
		if len(all) < 5 {
			t.Errorf("%s has only the commands %q", file, all)
		}
		for _, command := range all {
			if command == "ddtb on" { // prose: on which machine
				continue
			}
			if found, _, err := (&cli{}).root().Find(strings.Fields(command)[1:]); err != nil || found.CommandPath() != command {
				t.Errorf("%s: %s is no command (%v)", file, command, err)
			}
		}
	}
}
