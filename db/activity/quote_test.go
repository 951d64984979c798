package activity

import (
	osexec "os/exec"
	"strings"
	"testing"
	"unicode"
)

func TestAShellReadsTheQuotedTextAsItWasAndATerminalShowsIt(t *testing.T) {
	for name, text := range map[string]string{
		"a plain word": "ddtb/pool", "nothing": "", "quotes": `o'h "x" ` + "`id`", "an expansion": "$(exit 1) $HOME \\ ! * ~",
		"a line break": "one\ntwo", "an escape sequence": "\x1b[2J\x07", "another direction": "x\u202ecba", "an emoji": "😀",
		"what printf reads": "100%s \\n\t'\x01", "no UTF-8": "caf\xe9", "an option": "-n",
	} {
		t.Run(name, func(t *testing.T) {
			quoted := ShellQuote(text)
			if strings.ContainsFunc(quoted, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("a terminal does not show %q", quoted)
			}
			got, err := osexec.CommandContext(t.Context(), "sh", "-c", `printf '%s.' `+quoted).Output()
			if err != nil || string(got) != text+"." {
				t.Errorf("of %q, a shell makes %q, %v", quoted, got, err)
			}
		})
	}
}
