package localpg

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// entry is a line of the system's process list.
type entry struct {
	pid, parent int
	command     string // with its arguments
}

// familyOn returns the server's main process on data, recognised by its arguments, and its children.
func familyOn(data string, processes []entry) []int {
	main := slices.IndexFunc(processes, func(e entry) bool {
		program, arguments, _ := strings.Cut(e.command, " ")
		return filepath.Base(program) == "postgres" && strings.HasPrefix(arguments, "-D "+data+" -c ")
	})
	if main < 0 {
		return nil
	}
	pids := []int{processes[main].pid}
	for _, e := range processes {
		if e.parent == pids[0] {
			pids = append(pids, e.pid)
		}
	}
	return pids
}

// listedByPS returns the process list on systems without /proc.
func listedByPS() []entry {
	out, err := exec.Command("ps", "-axww", "-o", "pid=,ppid=,command=").Output() //nolint:noctx // doesn't wait
	if err != nil {
		return nil
	}
	var list []entry
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		pid, _ := strconv.Atoi(fields[0])
		parent, _ := strconv.Atoi(fields[1])
		list = append(list, entry{pid, parent, strings.Join(fields[2:], " ")})
	}
	return list
}
