package dbtest

import (
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"ddtb/db/logtest"
)

// Terminal returns a pseudo-terminal of that size, for code that writes to tty. keys is its master: bytes written there
// are typed keys. screen has everything written so far.
func Terminal(t testing.TB, rows, columns uint16) (screen *logtest.Log, keys, tty *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	must(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
	screen = &logtest.Log{}
	read := make(chan struct{})
	go func() { defer close(read); _, _ = io.Copy(screen, master) }()
	t.Cleanup(func() {
		_, _ = master.WriteString("\x04\x04") // a reader that was left behind keeps the terminal open
		_ = tty.Close()
		<-read
		_ = master.Close()
	})
	return screen, master, tty
}
