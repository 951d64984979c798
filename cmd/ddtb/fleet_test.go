package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
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

// The size of the fleet.
const (
	fleetBudget  = 20 // slots, of all processes together, on each server
	fleetVoters  = 12 // clients that vote
	fleetReaders = 12 // clients that read
)

// A deploy, the loss of a replica and a failover, one after the other under the same load. A read never fails. A vote
// fails only if it was on its way to the primary at the crash: it gets a page that offers to send it again, and is sent
// again from that page. In the end every voter has its acknowledgement, and every vote is stored once.
func TestAFleetRollsLosesAReplicaAndFailsOverAndFailsNoRequest(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.roll(f.processes[0])
	f.roll(f.processes[1])
	f.useHeir()
	f.lost.Stop(t, dbtest.Immediate)
	f.goOn()
	f.roll(f.processes[2])
	f.failOver()
	f.goOn()
	f.roll(f.processes[3])
	f.goOn()
	f.mustHaveFailedNothing()
}

// fleet is four processes behind a balancer, on a primary with two replicas, under load.
type fleet struct {
	*testing.T
	cfg                 config.Database
	primary, lost, heir *dbtest.Server // heir is the replica that is promoted
	processes           []*replica
	balancer            *balancer
	load                *fleetLoad
	votes               int64 // that were stored before the load
	samplers            []*sampler
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{T: t, primary: dbtest.NewServer(t, fleetServer())}
	f.lost, f.heir = f.primary.NewReplica(t), f.primary.NewReplica(t)
	f.cfg = f.primary.Config(t)
	m := newMachine(t)
	m.configure(f.cfg)
	m.run("", "loaddemo").must(exitFine)
	f.synchronous()
	f.cfg.Hosts = db.Hosts(f.address(f.primary) + "," + f.address(f.heir))
	for i := range 4 {
		r := newReplica(t, fmt.Sprintf("app%d", i+1), f.cfg, f.lines(f.lost))
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s:\n%s", r.name, r.log)
			}
		})
		r.start()
		f.processes = append(f.processes, r)
	}
	for _, s := range []*dbtest.Server{f.primary, f.lost, f.heir} {
		f.samplers = append(f.samplers, f.sample(s))
	}
	f.votes = f.stored(f.primary)
	f.balancer = haproxy(t, balancing{"roundrobin", true, soon}, f.processes...)
	f.load = f.clients()
	f.goOn()
	return f
}

// fleetServer has room for the budget, and for the connections that are not in it: those for monitoring.
func fleetServer() dbtest.Options {
	o := dbtest.Replicated()
	o.MaxConnections = 60
	return o
}

// lines are the configuration of each process, with the replicas that it uses.
func (f *fleet) lines(replicas ...*dbtest.Server) string {
	var hosts []string
	for _, s := range replicas {
		hosts = append(hosts, strconv.Quote(f.address(s)))
	}
	// A minute, so that a long queue on a slow machine refuses no request: the deploy would not be the cause.
	return fmt.Sprintf(`target_session_attrs = "read-write"
pool.max_size = "auto"
pool.timeout = "1m"
[databases.replica]
hosts = [%s]
[fleet]
budget = %d
`, strings.Join(hosts, ", "), fleetBudget)
}

func (f *fleet) address(s *dbtest.Server) string {
	to := s.Reach(f.cfg)
	return net.JoinHostPort(to.Host, strconv.Itoa(to.Port))
}

// synchronous makes each commit wait for a replica. They replay in order, so every vote that is acknowledged after the
// other replica was lost, and all before it, are on the heir.
func (f *fleet) synchronous() {
	f.Helper()
	control := dbtest.Control(f, f.cfg)
	for _, sql := range []string{
		"ALTER DATABASE " + f.cfg.Name + " SET synchronous_commit = on",
		"ALTER SYSTEM SET synchronous_standby_names = '*'", // after the replicas were made: the heir has nobody to wait for
		"SELECT pg_reload_conf()",
	} {
		if _, err := control.Exec(f.Context(), sql); err != nil {
			f.Fatal(err)
		}
	}
	dbtest.Eventually(f, "a replica is synchronous", func() bool {
		var n int
		err := control.QueryRow(f.Context(), "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").Scan(&n)
		return err == nil && n == 1
	})
}

// roll replaces a process, as a deploy does.
func (f *fleet) roll(r *replica) {
	f.Helper()
	r.end(syscall.SIGTERM)
	if code := r.cmd.ProcessState.ExitCode(); code != exitFine {
		f.Errorf("%s ended with %d:\n%s", r.name, code, r.log)
	}
	f.goOn()
	r.start()
	f.balancer.waits(r, "serves again", func(s server) bool { return s.status == "UP" })
	f.goOn()
}

// useHeir lets the running processes read from the second replica too.
func (f *fleet) useHeir() {
	f.Helper()
	for _, r := range f.processes {
		text, err := os.ReadFile(r.file)
		if err != nil {
			f.Fatal(err)
		}
		changed := strings.Replace(string(text), f.lines(f.lost), f.lines(f.lost, f.heir), 1)
		if err := os.WriteFile(r.file, []byte(changed), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	for _, r := range f.processes {
		dbtest.Eventually(f, r.name+" reads from the second replica", func() bool {
			return r.log.Count("reads go to this replica", f.address(f.heir)) == 1
		})
	}
	f.goOn()
}

// failOver crashes the primary and promotes the heir, as a cluster manager does.
func (f *fleet) failOver() {
	f.Helper()
	control := f.heir.Control(f, f.cfg.Name)
	f.load.crashed.Store(time.Now().Add(time.Hour).UnixNano())
	f.primary.Stop(f, dbtest.Immediate)
	f.load.crashed.Store(time.Now().UnixNano())
	if _, err := control.Exec(f.Context(), "SELECT pg_promote()"); err != nil {
		f.Fatal(err)
	}
	promoted := time.Now()
	before := f.load.votes.Load()
	dbtest.Eventually(f, "a vote is stored after the promotion", func() bool { return f.load.votes.Load() > before })
	f.Logf("a vote was acknowledged %v after the promotion", time.Since(promoted).Round(time.Millisecond))
}

// goOn waits for more votes and pages.
func (f *fleet) goOn() {
	f.Helper()
	votes, pages := f.load.votes.Load(), f.load.pages.Load()
	dbtest.Eventually(f, "votes and pages go on", func() bool {
		return f.load.votes.Load() > votes+50 && f.load.pages.Load() > pages+50
	})
}

func (f *fleet) mustHaveFailedNothing() {
	f.Helper()
	f.load.stop()
	f.Logf("%d pages and %d votes, of which %d were sent again after the failover",
		f.load.pages.Load(), f.load.votes.Load(), f.load.again.Load())
	if len(f.load.why) > 0 {
		f.Errorf("requests failed: %v", f.load.why)
	}
	if n := f.load.again.Load(); n > fleetVoters {
		f.Errorf("%d votes failed, and only %d can have been on their way", n, fleetVoters)
	}
	if stored, n := f.stored(f.heir)-f.votes, f.load.votes.Load(); stored != n {
		f.Errorf("%d votes are stored, and %d were acknowledged", stored, n)
	}
	for i, s := range f.samplers {
		peak, samples := s.stop()
		f.Logf("server %d: %d connections at most, in %d samples", i, peak, samples)
		if peak > fleetBudget {
			f.Errorf("server %d had %d connections, and the budget is %d: %v", i, peak, fleetBudget, s.over)
		}
		if peak == 0 || samples == 0 {
			f.Errorf("server %d was not used", i)
		}
	}
}

// stored returns the number of votes on a server.
func (f *fleet) stored(s *dbtest.Server) (votes int64) {
	f.Helper()
	if err := s.Control(f, f.cfg.Name).QueryRow(f.Context(), "SELECT sum(votes) FROM polls_choice").Scan(&votes); err != nil {
		f.Fatal(err)
	}
	return votes
}

// sampler counts a server's connections of the fleet every 50 ms.
type sampler struct {
	stop func() (peak, samples int)
	over []string
}

func (f *fleet) sample(s *dbtest.Server) *sampler {
	f.Helper()
	conn := s.Control(f, f.cfg.Name)
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	peak, samples := 0, 0
	of := &sampler{}
	ended.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			backends, err := fleetBackends(ctx, conn)
			if err == nil && len(backends) > fleetBudget {
				// For a moment a backend is listed after its ticket is free, and one that has told a process in search of
				// the primary that this is a standby.
				f.Logf("%d at %s", len(backends), time.Now().Format("05.000"))
				<-time.After(20 * time.Millisecond)
				var later []int
				later, err = fleetBackends(ctx, conn)
				backends = slices.DeleteFunc(backends, func(pid int) bool { return !slices.Contains(later, pid) })
			}
			if err != nil {
				return // the server was stopped
			}
			n := len(backends)
			if peak, samples = max(peak, n), samples+1; n > fleetBudget {
				of.over = append(of.over, fmt.Sprintf("%d at %s", n, time.Now().Format("05.000")))
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	of.stop = sync.OnceValues(func() (int, int) {
		cancel()
		ended.Wait()
		return peak, samples
	})
	f.Cleanup(func() { of.stop() })
	return of
}

// fleetBackends returns the process IDs of those in the budget.
func fleetBackends(ctx context.Context, conn *pgx.Conn) ([]int, error) {
	rows, _ := conn.Query(ctx, `SELECT pid FROM pg_stat_activity WHERE application_name = 'ddtb/pool'`) // carries the error too
	return pgx.CollectRows(rows, pgx.RowTo[int])
}

// fleetLoad is clients that send requests as fast as they are answered.
type fleetLoad struct {
	site                string
	client              *http.Client
	pages, votes, again atomic.Int64 // again: votes that were sent again from the page that offers it
	crashed             atomic.Int64 // when the last process of the primary had ended, in Unix nanoseconds
	mu                  sync.Mutex
	why                 []string // the failures
	stop                func()
}

func (f *fleet) clients() *fleetLoad {
	l := &fleetLoad{site: f.balancer.url, client: &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: fleetVoters + fleetReaders},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	for range fleetVoters {
		ended.Go(func() {
			for ctx.Err() == nil {
				l.vote()
			}
		})
	}
	for range fleetReaders {
		ended.Go(func() {
			for ctx.Err() == nil {
				l.read()
			}
		})
	}
	l.stop = sync.OnceFunc(func() {
		cancel()
		ended.Wait()
		l.client.CloseIdleConnections()
	})
	f.Cleanup(l.stop)
	return l
}

func (l *fleetLoad) read() {
	resp, err := l.client.Get(l.site + "/polls/") //nolint:noctx // the balancer ends it
	status, page, err := readAnswer(resp, err)
	if err != nil || status != http.StatusOK {
		l.fail("a page", status, page, err)
		return
	}
	l.pages.Add(1)
}

// vote opens the form and sends it, as a browser does. If the primary is lost on the way, it sends again what the error
// page offers, until the vote is acknowledged.
func (l *fleetLoad) vote() {
	resp, err := l.client.Get(l.site + "/polls/1/") //nolint:noctx // the balancer ends it
	status, page, err := readAnswer(resp, err)
	if err != nil || status != http.StatusOK {
		l.fail("a form", status, page, err)
		return
	}
	form := formOf(page)
	form.Set("choice", "1")
	for sent := 0; ; sent++ {
		began := time.Now()
		resp, err := l.client.PostForm(l.site+"/polls/1/vote/", form) //nolint:noctx // as above
		status, page, err := readAnswer(resp, err)
		switch {
		case err == nil && status == http.StatusFound:
			l.votes.Add(1)
			return
		case err != nil || !l.offers(page, form) || !l.underWay(began):
			l.fail(fmt.Sprintf("a vote, sent at %s,", began.Format("05.000")), status, page, err)
			return
		}
		if sent == 0 {
			l.again.Add(1)
		}
	}
}

// underWay reports whether a vote that began then was under way at the crash.
func (l *fleetLoad) underWay(began time.Time) bool {
	crash := l.crashed.Load()
	return crash > 0 && began.UnixNano() < crash
}

// offers reports whether the page has the form that was sent.
func (l *fleetLoad) offers(page string, sent url.Values) bool {
	return strings.Contains(page, `action="/polls/1/vote/"`) && maps.EqualFunc(formOf(page), sent, func(a, b []string) bool {
		return len(a) == 1 && len(b) == 1 && a[0] == b[0]
	})
}

func (l *fleetLoad) fail(what string, status int, page string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since := ""
	if crash := l.crashed.Load(); crash > 0 {
		since = fmt.Sprintf(" %v after the crash", time.Since(time.Unix(0, crash)).Round(time.Millisecond))
	}
	title := ""
	if _, after, ok := strings.Cut(page, "<title>"); ok {
		title, _, _ = strings.Cut(after, "</title>")
	} else {
		title = page
	}
	l.why = append(l.why, fmt.Sprintf("%s%s: %d %s %v", what, since, status, title, err))
}

func readAnswer(resp *http.Response, err error) (status int, page string, _ error) {
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), errors.Join(err, resp.Body.Close())
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)

// formOf returns the page's hidden fields.
func formOf(page string) url.Values {
	form := url.Values{}
	for _, m := range hiddenField.FindAllStringSubmatch(page, -1) {
		form.Add(html.UnescapeString(m[1]), html.UnescapeString(m[2]))
	}
	return form
}
