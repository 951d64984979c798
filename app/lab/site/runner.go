package site

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"slices"
	"sync"
	"time"

	"ddtb/app/lab/scenarios"
	"ddtb/app/lab/scene"
)

const (
	maxQueue   = 10               // waiting runs
	idleServer = 30 * time.Second // how long the lab's server waits for the next run
	drawEvery  = 200 * time.Millisecond
)

// job is a waiting or current run.
type job struct {
	scenario *scene.Scenario
	only     string
	half     string // "": waiting
	samples  map[string][]scene.Sample
	drawn    time.Time
}

// runner runs one job at a time, in order of arrival.
type runner struct {
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	more   chan struct{} // buffered: a job was added

	mu      sync.Mutex
	jobs    []*job // the first may be running
	running bool   // the goroutine is running
	latest  map[string]*scene.Result
	changed chan struct{} // closed on a change
}

func newRunner(log *slog.Logger) *runner {
	r := &runner{log: log, more: make(chan struct{}, 1), latest: map[string]*scene.Result{}, changed: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

func (r *runner) close() {
	r.cancel()
	r.work.Wait()
}

// notify wakes the viewers. The caller holds the lock.
func (r *runner) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// add queues a run, unless the scenario is already queued. It reports whether there was room.
func (r *runner) add(s *scene.Scenario, only string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.jobs, func(j *job) bool { return j.scenario == s }) {
		return true
	}
	if len(r.jobs) > maxQueue || r.ctx.Err() != nil {
		return false
	}
	r.jobs = append(r.jobs, &job{scenario: s, only: only, samples: map[string][]scene.Sample{}})
	r.notify()
	if !r.running {
		r.running = true
		r.work.Go(r.run)
	}
	select {
	case r.more <- struct{}{}:
	default:
	}
	return true
}

// run processes the queue. It ends, and stops the server, after a while without jobs.
func (r *runner) run() {
	server, err := scene.Open(r.ctx, r.log)
	defer func() {
		if server != nil {
			if err := server.Close(); err != nil {
				r.log.Warn("the lab's server did not end in order", "error", err)
			}
		}
	}()
	for {
		if j := r.first(); j != nil {
			r.play(server, err, j)
			continue
		}
		select {
		case <-r.more:
		case <-r.ctx.Done():
			r.idle()
			return
		case <-time.After(idleServer):
			if r.idle() {
				return
			}
		}
	}
}

// idle reports whether there is nothing to do; then the next job starts a new goroutine.
func (r *runner) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.jobs) > 0 && r.ctx.Err() == nil {
		return false
	}
	r.running = false
	return true
}

func (r *runner) first() *job {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.jobs) == 0 || r.ctx.Err() != nil {
		return nil
	}
	return r.jobs[0]
}

func (r *runner) play(server *scene.Server, openErr error, j *job) {
	result := &scene.Result{Number: j.scenario.Number, Name: j.scenario.Name, Title: j.scenario.Title, Figure: j.scenario.Figure, At: time.Now()}
	if openErr != nil {
		result.Error = openErr.Error()
	} else {
		result = server.Run(r.ctx, j.scenario, scene.Plan{
			Only: j.only, Before: func(half string, _ *scene.Scenario) { r.begin(j, half) },
			Observe: func(half string, s scene.Sample) { r.observe(j, half, s) },
		})
	}
	if result.Error != "" && r.ctx.Err() == nil {
		r.log.Warn("a scenario of the lab could not be run", "scenario", result.Name, "error", result.Error)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(result)
	r.jobs = r.jobs[1:]
	r.notify()
}

// keep stores the result. A run of one half keeps the other half's result. The caller holds the lock.
func (r *runner) keep(result *scene.Result) {
	if old := r.latest[result.Name]; old != nil && result.Error == "" {
		if result.Failure == nil {
			result.Failure, result.Reproduced = old.Failure, old.Reproduced
		}
		if result.Fix == nil {
			result.Fix, result.Fixed = old.Fix, old.Fixed
		}
	}
	r.latest[result.Name] = result
}

func (r *runner) begin(j *job, half string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	j.half = half
	r.notify()
}

func (r *runner) observe(j *job, half string, s scene.Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	j.samples[half] = append(j.samples[half], s)
	if time.Since(j.drawn) >= drawEvery {
		j.drawn = time.Now()
		r.notify()
	}
}

func (r *runner) result(name string) *scene.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest[name]
}

// results returns the latest results, in the order of the scenarios.
func (r *runner) results() (list []*scene.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range scenarios.All() {
		if x := r.latest[s.Name]; x != nil {
			list = append(list, x)
		}
	}
	return list
}

// queue lists the current and waiting runs by name.
type queue []string

func (q queue) has(name string) bool { return slices.Contains(q, name) }

func (r *runner) queued() (q queue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		q = append(q, j.scenario.Name)
	}
	return q
}

// picture renders the run's current state as HTML; "" if the scenario is not queued.
func (r *runner) picture(name string) template.HTML {
	html, _ := r.watch(name)
	return html
}

// watch is picture, with a channel that is closed when it changes.
func (r *runner) watch(name string) (template.HTML, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, j := range r.jobs {
		if j.scenario.Name == name {
			return j.draw(i), r.changed
		}
	}
	return "", r.changed
}

// draw renders the job's halves so far, or its place in the queue. The caller holds the runner's lock.
func (j *job) draw(place int) template.HTML {
	var b bytes.Buffer
	if j.half == "" && place > 0 {
		fmt.Fprintf(&b, `<p role="status">It waits. Runs before it: %d.</p>`, place)
		return template.HTML(b.String()) //nolint:gosec // a number
	}
	if j.half == "" {
		return `<p role="status">The server of the lab starts.</p>`
	}
	b.WriteString(`<div class="halves">`)
	for _, half := range []string{scene.Failure, scene.Fix} {
		if samples := j.samples[half]; len(samples) > 0 {
			last := samples[len(samples)-1]
			caption := scene.Headings[half]
			fmt.Fprintf(&b, `<figure class="card"><figcaption><strong>%s:</strong> %d backends, %d served, %d refused</figcaption>%s</figure>`,
				caption, last.Backends, last.Served, last.Refused, svg(samples, j.scenario.ServerSlots(), caption))
		}
	}
	b.WriteString(`</div>`)
	return template.HTML(b.String()) //nolint:gosec // numbers, and a chart that escapes
}

// event encodes the picture for EventSource. HTML without line breaks is one line of data.
func event(picture template.HTML) []byte {
	if picture == "" {
		return []byte("event: done\ndata: {}\n\n")
	}
	return []byte("event: picture\ndata: " + string(picture) + "\n\n")
}
