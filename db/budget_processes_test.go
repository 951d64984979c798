package db_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// The processes of a deployment are real: the test binary, started again with this variable.
const processVariable = "DDTB_TEST_BUDGET_PROCESS"

const processClients = 8 // in each process; each queries repeatedly

// outcome is the report of a process when it stops.
type outcome struct {
	Requests, Failures int64
	First              string // of the failures
}

// budgetProcess is main of such a process.
func budgetProcess(settings string) int {
	var s db.Settings
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		fmt.Println(err)
		return 1
	}
	s.Password = db.Secret(os.Getenv("PGPASSWORD")) // JSON has it redacted
	d, err := db.Open(context.Background(), s)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	until, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var o outcome
	var clients sync.WaitGroup
	var first sync.Once
	for range processClients {
		clients.Go(func() {
			for until.Err() == nil {
				_, err := d.Exec(context.Background(), "SELECT pg_sleep(0.02)")
				atomic.AddInt64(&o.Requests, 1)
				if err != nil {
					atomic.AddInt64(&o.Failures, 1)
					first.Do(func() { o.First = err.Error() })
				}
			}
		})
	}
	clients.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		return 1
	}
	return 0
}

// fleet is the processes, and what a connection from outside sees of them.
type fleet struct {
	*testing.T
	cfg      config.Database
	budget   int
	control  *pgx.Conn
	started  int
	running  map[string]*exec.Cmd // by application_name
	outputs  map[string]*bufio.Reader
	requests int64

	peak, monitors int // at any sample
	samples        int
}

func (f *fleet) start() (name string) {
	f.Helper()
	f.started++
	cfg := f.cfg
	cfg.ApplicationName = fmt.Sprintf("process-%d", f.started)
	settings, err := json.Marshal(cfg)
	if err != nil {
		f.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		f.Fatal(err)
	}
	c := exec.CommandContext(f.Context(), binary)
	c.Env = append(os.Environ(), processVariable+"="+string(settings), "PGPASSWORD="+cfg.Password.Reveal())
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		f.Fatal(err)
	}
	if err := c.Start(); err != nil {
		f.Fatal(err)
	}
	f.running[cfg.ApplicationName], f.outputs[cfg.ApplicationName] = c, bufio.NewReader(out)
	return cfg.ApplicationName
}

// stop ends a process as a deployment does, and reads its outcome.
func (f *fleet) stop(name string) {
	f.Helper()
	c := f.running[name]
	delete(f.running, name)
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		f.Fatal(err)
	}
	done := make(chan outcome, 1)
	go func() {
		line, _ := f.outputs[name].ReadString('\n')
		o := outcome{Failures: -1, First: line}
		_ = json.Unmarshal([]byte(line), &o)
		_ = c.Wait()
		done <- o
	}()
	var o outcome
	f.await("the process stops", 20*time.Second, func(map[string]int) bool {
		select {
		case o = <-done:
			return true
		default:
			return false
		}
	})
	f.requests += o.Requests
	if o.Failures != 0 || o.Requests == 0 {
		f.Errorf("%s: %d of %d requests failed, the first with: %s", name, o.Failures, o.Requests, o.First)
	}
}

func (f *fleet) kill(name string) {
	f.Helper()
	c := f.running[name]
	delete(f.running, name)
	if err := c.Process.Kill(); err != nil {
		f.Fatal(err)
	}
	_ = c.Wait()
}

// sample counts the connections of the pools, by process, and checks the budget.
func (f *fleet) sample() map[string]int {
	f.Helper()
	rows, err := f.control.Query(f.Context(), `SELECT split_part(application_name, '/', 1), split_part(application_name, '/', 2), count(*)
		FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'process-%' GROUP BY 1, 2`, f.cfg.Name)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	pools, sum, monitors := map[string]int{}, 0, 0
	for rows.Next() {
		var name, kind string
		var n int
		if err := rows.Scan(&name, &kind, &n); err != nil {
			f.Fatal(err)
		}
		if kind == "monitor" {
			monitors += n
			continue
		}
		pools[name] += n
		sum += n
	}
	f.samples++
	f.peak, f.monitors = max(f.peak, sum), max(f.monitors, monitors)
	if sum > f.budget {
		f.Errorf("%d connections, the budget is %d: %v", sum, f.budget, pools)
	}
	return pools
}

// await samples every 50 ms until ok, and returns how long that took.
func (f *fleet) await(what string, most time.Duration, ok func(map[string]int) bool) time.Duration {
	f.Helper()
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		now := f.sample()
		switch took := time.Since(began); {
		case ok(now):
			return took.Round(50 * time.Millisecond)
		case took > most:
			f.Fatalf("still not so after %v: %s: %v", most, what, now)
		}
		<-tick.C
	}
}

// fair waits until each process has its share, give or take one.
func (f *fleet) fair(what string) {
	f.Helper()
	n := len(f.running)
	share := float64(f.budget) / float64(n)
	took := f.await(what+": shares are fair", 5*time.Second, func(pools map[string]int) bool {
		for name := range f.running {
			if d := float64(pools[name]) - share; d < -1 || d > 1 {
				return false
			}
		}
		return true
	})
	f.Logf("%s: %d processes have %.1f ± 1 of %d connections after %v", what, n, share, f.budget, took)
}

func TestProcessesThatComeAndGoNeverHaveMoreConnectionsThanTheBudget(t *testing.T) {
	s := dbtest.NewServer(t, dbtest.Options{MaxConnections: 50})
	cfg := s.Config(t)
	auto(20)(&cfg)
	f := &fleet{
		T: t, cfg: cfg, budget: 20, control: dbtest.Control(t, cfg),
		running: map[string]*exec.Cmd{}, outputs: map[string]*bufio.Reader{},
	}
	t.Cleanup(func() {
		for _, c := range f.running {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	})
	var names []string
	for range 4 {
		names = append(names, f.start())
	}
	f.fair("4 processes start")
	for range 4 {
		names = append(names, f.start())
	}
	f.fair("4 more start")
	f.kill(names[0])
	f.fair("one is killed")
	for i := 1; i < 5; i++ {
		names = append(names, f.start())
		f.stop(names[i])
	}
	f.fair("4 are replaced")
	for _, name := range names[5:8] {
		f.stop(name)
	}
	f.fair("3 stop")
	for _, name := range names[8:] {
		f.stop(name)
	}
	f.await("no connection is left", 5*time.Second, func(pools map[string]int) bool { return len(pools) == 0 })
	t.Logf("%d requests without a failure; %d connections and %d monitoring connections at most, in %d samples",
		f.requests, f.peak, f.monitors, f.samples)
	if f.peak < 18 {
		t.Errorf("no more than %d connections were used", f.peak)
	}
}
