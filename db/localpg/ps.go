package localpg

import (
	"bufio"
	"bytes"
	"os/exec"
	"strconv"
	"strings"
)

// listedByPS is processesOf for systems without /proc: the main process has data in its arguments, the others
// have it as their parent.
func listedByPS(data string) []int {
	out, err := exec.Command("ps", "-axww", "-o", "pid=,ppid=,command=").Output() //nolint:noctx // doesn't wait
	if err != nil {
		return nil
	}
	main, children := 0, map[int][]int{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		pid, _ := strconv.Atoi(fields[0])
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
		if strings.Contains(lines.Text(), "postgres -D "+data+" -c ") {
			main = pid
		}
	}
	if main == 0 {
		return nil
	}
	return append([]int{main}, children[main]...)
}
