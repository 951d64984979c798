package lab

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/config"
	"ddtb/db"
)

// Stress is the response of /test/pool-stress.
type Stress struct {
	Test            string   `json:"test"`
	Strategy        string   `json:"strategy"`
	Settings        Settings `json:"settings"`
	Private         bool     `json:"private"` // on an instance of its own, beside the application's
	Threads         int      `json:"threads"`
	Hold            string   `json:"hold"`
	Successes       int      `json:"successes"`
	Failures        int      `json:"failures"`
	Results         []string `json:"results"`
	Errors          []string `json:"errors"`
	PeakConnections int      `json:"peak_connections"`     // counted on the server
	PeakError       string   `json:"peak_error,omitempty"` // why the peak may have been missed
	WaitsMS         Waits    `json:"waits_ms"`
	DurationSeconds float64  `json:"duration_seconds"`
}

// Settings are the strategy's settings, by key without the section: {"max_size": 3, "timeout": "10s"}.
type Settings map[string]any

// Waits are the waits of all threads, including failed ones.
type Waits struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// SettingsOf returns the settings of the strategy that cfg names.
func SettingsOf(cfg config.Database) Settings {
	settings := Settings{}
	spec, _ := db.Lookup(cfg.Strategy)
	for _, x := range spec.Show(cfg) {
		_, key, _ := strings.Cut(x.Key, ".")
		settings[key] = x.Value
		if _, is := x.Value.(time.Duration); is {
			settings[key] = x.Text()
		}
	}
	return settings
}

// params are the parameters of a stress run.
type params struct {
	threads int
	hold    time.Duration
	timeout time.Duration // 0: the strategy decides, or there is no wait
	private bool
}

const (
	holdWithoutTimeout = time.Second            // the default, if the strategy has no timeout
	holdLonger         = 100 * time.Millisecond // minimum beyond the timeout: threads don't start at the same instant
	closeTimeout       = 5 * time.Second        // of a private instance whose leases are all released
)

// readStress reads the parameters within the limits, and changes cfg for a private instance. By default a thread holds
// its connection a twentieth longer than the timeout, so that exactly the threads without a place fail.
func readStress(c echo.Context, limits config.Test, cfg *config.Database) (*params, error) {
	q := newQuery(c)
	p := &params{threads: q.number("threads", min(15, limits.MaxThreads), 1, limits.MaxThreads)}
	p.private = q.private(cfg, limits.MaxThreads)
	p.timeout = q.duration("timeout", min(timeoutOf(*cfg), limits.MaxHold), time.Millisecond, limits.MaxHold)
	hold := holdWithoutTimeout
	if p.timeout > 0 {
		hold = min(p.timeout+max(p.timeout/20, holdLonger), limits.MaxHold)
	}
	p.hold = q.duration("hold", hold, 0, limits.MaxHold)
	if !p.private {
		q.withinOwn(p.timeout, timeoutOf(*cfg))
	}
	if p.private && p.timeout > 0 {
		setOwn(cfg, specOf(cfg).TimeoutKey, p.timeout.String())
	}
	if p.timeout == timeoutOf(*cfg) {
		p.timeout = 0
	}
	return p, q.end()
}

// timeoutOf returns how long a holder waits under the strategy; 0 if it does not wait, or has no such setting.
func timeoutOf(cfg config.Database) time.Duration {
	spec := specOf(&cfg)
	if spec.Size(cfg) == 0 || spec.TimeoutKey == "" {
		return 0
	}
	return spec.Timeout(cfg)
}

// poolStress runs the given number of holders at once on the live strategy or, with strategy=, max_size= and similar
// parameters, on a private instance. It reports which of them got a connection.
func (l *Lab) poolStress(c echo.Context) error {
	cfg := l.db.Config()
	p, err := readStress(c, *l.limits.Load(), &cfg)
	if err != nil {
		return err
	}
	d, end, err := l.begin(p.private, cfg, nil)
	if err != nil {
		return err
	}
	defer end()
	s, threads := l.stress(c.Request().Context(), d, p, cfg)
	return answer(c, http.StatusOK, s, func() result { return s.page(threads) })
}

// thread is the result of one holder.
type thread struct {
	waited time.Duration
	err    error
}

func (l *Lab) stress(ctx context.Context, d *db.DB, p *params, cfg config.Database) (*Stress, []thread) {
	stopCounting := l.countPeak(ctx, cfg.ApplicationName+"/"+cfg.Strategy)
	began := time.Now()
	threads := make([]thread, p.threads)
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() { threads[i] = p.run(ctx, d) })
	}
	wg.Wait()
	s := &Stress{
		Test: "pool-stress", Strategy: cfg.Strategy, Settings: SettingsOf(cfg), Private: p.private,
		Threads: p.threads, Hold: p.hold.String(), DurationSeconds: float64(time.Since(began).Milliseconds()) / 1000,
		Results: []string{}, Errors: []string{},
	}
	s.PeakConnections, s.PeakError = stopCounting()
	s.summarize(threads)
	return s, threads
}

// run is one thread: it acquires a connection, uses it, and holds it. Its context ends with the client.
func (p *params) run(ctx context.Context, d *db.DB) thread {
	began := time.Now()
	acquire := ctx
	if p.timeout > 0 {
		var cancel context.CancelFunc
		acquire, cancel = context.WithTimeout(ctx, p.timeout)
		defer cancel()
	}
	lease, err := d.Acquire(acquire)
	waited := time.Since(began)
	if err != nil {
		return thread{waited, err}
	}
	defer lease.Release()
	_, err = lease.Conn().Exec(ctx, "SELECT 1")
	if err == nil {
		pause(ctx, p.hold)
	}
	return thread{waited, err}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// summarize counts the threads, and lists them, in the words of the report that the endpoint is based on.
func (s *Stress) summarize(threads []thread) {
	waits := make([]time.Duration, len(threads))
	for i, t := range threads {
		waits[i] = t.waited
		if t.err != nil {
			s.Failures++
			s.Errors = append(s.Errors, fmt.Sprintf("Thread %d: ERROR - %v", i, t.err))
			continue
		}
		s.Successes++
		s.Results = append(s.Results, fmt.Sprintf("Thread %d: OK - got a connection after %.2f sec", i, t.waited.Seconds()))
	}
	slices.Sort(waits)
	at := func(share float64) float64 { return milliseconds(waits[int(share*float64(len(waits)-1)+0.5)]) }
	s.WaitsMS = Waits{P50: at(0.5), P99: at(0.99), Max: at(1)}
}

// countEvery is the interval between counts of the backends. It is shorter than the hold of any useful run.
const countEvery = 25 * time.Millisecond

// lastCount is how long a count that has begun may outlast the run.
const lastCount = 2 * time.Second

// countPeak counts the application's backends on the server until stop is called, and at least once. stop returns the
// maximum, and why it may have been missed: the last count that failed.
func (l *Lab) countPeak(ctx context.Context, application string) (stop func() (int, string)) {
	running, end := context.WithCancel(ctx)
	counting, giveUp := context.WithCancel(ctx)
	var peak int
	var why string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for again := true; again; again = running.Err() == nil {
			n, err := l.monitor.Backends(counting, application)
			if err != nil && ctx.Err() == nil {
				why = err.Error()
			}
			peak = max(peak, n)
			pause(running, countEvery)
		}
	}()
	return func() (int, string) {
		end()
		defer giveUp()
		select {
		case <-done:
			return peak, why
		case <-time.After(lastCount):
		}
		giveUp()
		<-done
		return peak, "the server did not answer the last count in time"
	}
}

// milliseconds has two decimals.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// seconds has two decimals: Duration.Seconds has more after rounding, as in 1.1400000000000001.
func seconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Millisecond)) / float64(time.Second)
}
