package site

import (
	"cmp"
	"context"
	"html/template"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

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
	samples  map[string][]scene.Sample // of each half so far
	drawn    time.Time
	picture  func() template.HTML // of the state at the last notification; drawn for the first viewer
}

// runner runs one job at a time, in order of arrival.
type runner struct {
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	added  chan struct{} // buffered: a job was added

	mu      sync.Mutex
	jobs    []*job // the first may be running
	latest  map[string]*scene.Result
	changed chan struct{} // closed on a change
}

func newRunner(log *slog.Logger) *runner {
	r := &runner{log: log, added: make(chan struct{}, 1), latest: map[string]*scene.Result{}, changed: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.work.Go(r.run)
	return r
}

func (r *runner) close() {
	r.cancel()
	r.work.Wait()
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
	select {
	case r.added <- struct{}{}:
	default:
	}
	return true
}

// run processes the queue until the runner is closed.
func (r *runner) run() {
	for {
		select {
		case <-r.added:
			r.playAll()
		case <-r.ctx.Done():
			return
		}
	}
}

// playAll plays the jobs on a new server, which it stops after a while without jobs.
func (r *runner) playAll() {
	server, err := scene.Open(r.ctx, r.log)
	if err == nil {
		defer func() {
			if err := server.Close(); err != nil {
				r.log.Warn("the lab's server did not stop in order", "error", err)
			}
		}()
	}
	for {
		for j := r.first(); j != nil; j = r.first() {
			r.play(server, err, j)
		}
		select {
		case <-r.added:
		case <-time.After(idleServer):
			return
		case <-r.ctx.Done():
			return
		}
	}
}

func (r *runner) first() *job {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.jobs) == 0 || r.ctx.Err() != nil {
		return nil
	}
	return r.jobs[0]
}

// play runs the job on the server. noServer is the reason if there is none.
func (r *runner) play(server *scene.Server, noServer error, j *job) {
	result := scene.NewResult(j.scenario)
	if noServer != nil {
		result.Error = noServer.Error()
	} else {
		result = server.Run(r.ctx, j.scenario, scene.Plan{
			Only: j.only, Observe: func(half string, s scene.Sample) { r.observe(j, half, s) },
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

// keep stores the result. A half that was not run, or not to its end, keeps its earlier result. The caller holds the lock.
func (r *runner) keep(result *scene.Result) {
	if old := r.latest[result.Name]; old != nil {
		result.Server = cmp.Or(result.Server, old.Server)
		if result.Failure == nil {
			result.Failure, result.Reproduced = old.Failure, old.Reproduced
		}
		if result.Fix == nil {
			result.Fix, result.Fixed = old.Fix, old.Fixed
		}
	}
	r.latest[result.Name] = result
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

// notify wakes the viewers. Their picture is drawn at most once, and outside the lock: a run must not wait for viewers.
// The caller holds the lock.
func (r *runner) notify() {
	for place, j := range r.jobs {
		samples := maps.Clone(j.samples)
		j.picture = sync.OnceValue(func() template.HTML { return draw(j.scenario, samples, place) })
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// results returns the latest results by name.
func (r *runner) results() map[string]*scene.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.latest)
}

// queue returns the names of the current run and of the waiting ones.
func (r *runner) queue() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		names = append(names, j.scenario.Name)
	}
	return names
}

// picture renders the run's current state as HTML; "" if the scenario is not queued. changed is closed when it changes.
func (r *runner) picture(name string) (html template.HTML, changed <-chan struct{}) {
	r.mu.Lock()
	i := slices.IndexFunc(r.jobs, func(j *job) bool { return j.scenario.Name == name })
	if i < 0 {
		defer r.mu.Unlock()
		return "", r.changed
	}
	picture, changed := r.jobs[i].picture, r.changed
	r.mu.Unlock()
	return picture(), changed // drawn outside the lock
}

// draw renders a run's halves so far, or its place in the queue.
func draw(x *scene.Scenario, samples map[string][]scene.Sample, place int) template.HTML {
	type half struct {
		scene.Sample
		Heading string
		Chart   template.HTML
	}
	var halves []half
	for _, name := range []string{scene.Failure, scene.Fix} {
		if all, heading := samples[name], scene.Headings[name]; len(all) > 0 {
			halves = append(halves, half{all[len(all)-1], heading, svg(all, x.ServerSlots(), heading)})
		}
	}
	return drawing("run", map[string]any{"Before": place, "Halves": halves})
}

// event encodes the picture for EventSource, as one line of data.
func event(picture template.HTML) []byte {
	if picture == "" {
		return []byte("event: done\ndata: {}\n\n")
	}
	return []byte("event: picture\ndata: " + strings.ReplaceAll(string(picture), "\n", "") + "\n\n")
}
