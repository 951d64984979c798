package localpg

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent has the kernel ask the child for a fast shutdown when we are killed.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGINT }

// processesOf are the server processes that work on data, their main one first. Each of them has data as its
// working directory, whoever its parent is by now; but that is not for everyone to see: root in a container
// has to go by the main one's arguments and its children.
func processesOf(data string) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // fails for a malformed pattern alone
	var pids []int
	var list []entry
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if worksIn(dir, data) {
			pids = append(pids, pid)
		}
		list = append(list, entry{pid, parentIn(dir), commandIn(dir)})
	}
	pids = append(pids, familyOn(data, list)...)
	slices.Sort(pids)
	return mainFirst(slices.Compact(pids), data)
}

func worksIn(proc, data string) bool {
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	if err != nil || strings.TrimSuffix(cwd, " (deleted)") != data {
		return false
	}
	exe, err := os.Readlink(filepath.Join(proc, "exe")) // it may be someone's shell that works there
	return err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "postgres"
}

// parentIn is the process's parent, or 0 for one that is gone but for its parent's taking note.
func parentIn(proc string) int {
	text, _ := os.ReadFile(filepath.Join(proc, "stat"))
	_, rest, _ := strings.Cut(string(text), ") ") // "PID (name) state parent …"
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[0] == "Z" {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

func commandIn(proc string) string {
	text, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
	return strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " ")
}
