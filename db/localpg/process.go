package localpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ddtb/db/localpg/system"
)

// process is the server's main process, a child of ours.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended, after done; nil: with status 0
}

// shutdown is one way to stop a server.
type shutdown struct {
	signal   syscall.Signal
	patience time.Duration // before the next, more forceful one
}

var (
	fast      = shutdown{syscall.SIGINT, 10 * time.Second} // terminate the sessions, write everything
	immediate = shutdown{syscall.SIGQUIT, 5 * time.Second} // write nothing: recovery at the next start
)

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	dieWithParent(cmd)
	started := make(chan error)
	go p.keep(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// run runs a program that ends by itself. If ctx ends first, the program and its children are killed.
func run(ctx context.Context, cmd *exec.Cmd) (output string, err error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := startProcess(cmd)
	if err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() { _ = system.Kill(-cmd.Process.Pid, syscall.SIGKILL) })()
	<-p.done
	return strings.TrimSpace(out.String()), errors.Join(p.err, ctx.Err())
}

// keep starts the child and reaps it, on a thread that ends with the child: the kernel signals the parent's death to
// the child when the thread that started it ends, not the process.
func (p *process) keep(started chan<- error) {
	runtime.LockOSThread()
	defer close(p.done)
	err := p.cmd.Start()
	started <- err
	if err == nil {
		p.err = p.cmd.Wait()
	}
}

// end stops the process with increasing force, and returns when all processes on data have ended.
func (p *process) end(ctx context.Context, how shutdown, data string) error {
	for _, step := range []shutdown{how, immediate} {
		_ = p.cmd.Process.Signal(step.signal) // fails if it has ended, which is fine
		select {
		case <-p.done:
			return killAll(data)
		case <-ctx.Done():
			ctx = context.WithoutCancel(ctx) // once: the immediate shutdown has its own time
		case <-time.After(step.patience):
		}
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return killAll(data)
}

// takeOver stops the processes of an earlier, killed run on the directory's data. We hold the lock, so no other process
// uses them.
func takeOver(ctx context.Context, f *directory, log *slog.Logger) error {
	left := processesOf(f.data())
	pidFile := filepath.Join(f.data(), "postmaster.pid")
	if len(left) > 0 {
		log.Warn("stopping the PostgreSQL that an earlier run left", "pid", left[0], "processes", len(left), "dir", f.path)
		signalAll(left, system.Continue) // a stopped process does not react
		if left[0] == pidIn(pidFile) {
			signalAll(left[:1], fast.signal)
			waitGone(ctx, f.data(), fast.patience)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := killAll(f.data()); err != nil {
			return err
		}
	}
	// Its process has ended. PostgreSQL would refuse to start if another process had got the same PID since.
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// killAll kills the remaining processes of a server whose main process has ended. Those that have not noticed yet would
// prevent a new start.
func killAll(data string) error {
	if waitGone(context.Background(), data, time.Second) {
		return nil
	}
	signalAll(processesOf(data), syscall.SIGKILL)
	if waitGone(context.Background(), data, 5*time.Second) {
		return nil
	}
	return fmt.Errorf("processes %v of the server can't be ended", processesOf(data))
}

func signalAll(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = system.Kill(pid, sig) // fails if it has ended, which is fine
	}
}

// waitGone waits until no process uses data, and reports whether that happened.
func waitGone(ctx context.Context, data string, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for pause := time.Millisecond; len(processesOf(data)) > 0; pause = min(2*pause, 100*time.Millisecond) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
	return true
}

// pidIn returns the number in the first line of postmaster.pid, or 0.
func pidIn(name string) int {
	text, _ := os.ReadFile(name)
	first, _, _ := strings.Cut(string(text), "\n")
	pid, _ := strconv.Atoi(strings.TrimSpace(first))
	return pid
}

// mainFirst sorts pids, takes duplicates out, and puts the server's main process first if it is known.
func mainFirst(pids []int, data string) []int {
	slices.Sort(pids)
	pids = slices.Compact(pids)
	if at := slices.Index(pids, pidIn(filepath.Join(data, "postmaster.pid"))); at > 0 {
		main := pids[at]
		pids = slices.Insert(slices.Delete(pids, at, at+1), 0, main)
	}
	return pids
}

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
