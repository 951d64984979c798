package scene

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Plan describes how to run a scenario.
type Plan struct {
	Only          string                      // Failure or Fix; "": both
	WithoutTheFix bool                        // the second half also runs without the fix
	Observe       func(half string, s Sample) // called for each sample; may be nil
}

// runLimit is the time limit of one half.
const runLimit = 30 * time.Second

// Run runs the scenario. If the run was not possible, the result has the reason.
func (s *Server) Run(ctx context.Context, sc *Scenario, p Plan) *Result {
	r := NewResult(sc)
	if err := s.halves(ctx, sc, p, r); err != nil {
		r.Error = err.Error()
	}
	if s.pg != nil {
		r.Server = s.pg.Version()
	}
	r.Reproduced = r.Failure != nil && r.Failure.Value > sc.Tolerated
	r.Fixed = r.Fix != nil && r.Fix.Value <= sc.Tolerated
	r.Seconds = float64(time.Since(r.At).Round(100*time.Millisecond)) / float64(time.Second)
	return r
}

func (s *Server) halves(ctx context.Context, sc *Scenario, p Plan, r *Result) (err error) {
	if p.Only != Fix {
		if r.Failure, err = s.half(ctx, sc, Failure, sc.Fails, p); err != nil {
			return err
		}
	}
	works := sc.Works
	if p.WithoutTheFix {
		works = sc.Fails
	}
	if p.Only != Failure {
		r.Fix, err = s.half(ctx, sc, Fix, works, p)
	}
	return err
}

// half runs a variant's application under the load.
func (s *Server) half(ctx context.Context, sc *Scenario, name string, v Variant, p Plan) (*Outcome, error) {
	if err := s.ensure(ctx, sc.ServerSlots()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	stage := &Stage{server: s, ctx: ctx, tally: newTally(), observe: func(x Sample) {
		if p.Observe != nil {
			p.Observe(name, x)
		}
	}}
	end := sync.OnceFunc(func() { stage.close(cancel) })
	defer end()
	if sc.Setup != nil {
		sc.Setup(stage)
	}
	request := v(stage)
	if stage.failure() == nil {
		stage.play(sc.Load, request)
	}
	o := stage.outcome(sc)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("stopped: %w", err)
	}
	end()
	if err := stage.failure(); err != nil {
		return nil, err
	}
	return o, nil
}

// play sends the load while the server is sampled.
func (s *Stage) play(load Load, request Request) {
	watching, stop := context.WithCancel(context.WithoutCancel(s.ctx))
	var watched sync.WaitGroup
	watched.Go(func() { s.watch(watching) })
	s.tally.run(s.ctx, load, request)
	for _, f := range s.last {
		f()
	}
	stop()
	watched.Wait()
}

func (s *Stage) outcome(sc *Scenario) *Outcome {
	o := s.tally.outcome()
	o.Of, o.Slots, o.Peak, o.Samples = sc.of(), s.Slots(), s.peak(), s.samples
	o.Value = o.Refused
	if sc.Value != nil {
		o.Value = sc.Value(s)
	}
	return o
}

// watch samples until ctx ends, and once afterwards.
func (s *Stage) watch(ctx context.Context) {
	start := time.Now()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		s.sample(start)
		select {
		case <-ctx.Done():
			s.sample(start)
			return
		case <-tick.C:
		}
	}
}

// A login that is being refused has no name yet, and uses no application slot.
const sampleSQL = `SELECT count(*) FROM pg_stat_activity
	WHERE backend_type = 'client backend' AND usename IN ('` + appRole + `', '` + otherRole + `')`

// sample counts the backends. It waits while the server restarts. There is no sample if the server does not answer.
func (s *Stage) sample(start time.Time) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.session == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	x := Sample{At: time.Since(start)}
	if s.server.session.QueryRow(ctx, sampleSQL).Scan(&x.Backends) != nil {
		return
	}
	x.Served, x.Refused = s.tally.now()
	s.samples = append(s.samples, x)
	s.observe(x)
}

func (s *Stage) peak() (peak int) {
	for _, x := range s.samples {
		peak = max(peak, x.Backends)
	}
	return peak
}
