package scene

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Plan describes how to run a scenario.
type Plan struct {
	Only          string                            // Failure or Fix; "": both
	WithoutTheFix bool                              // the second half also runs without the fix
	Observe       func(half string, s Sample)       // called for each sample; may be nil
	Before        func(half string, load *Scenario) // called before each half; may be nil
}

// runLimit is the time limit of one half.
const runLimit = 30 * time.Second

// Run runs the scenario. If the run was not possible, the result has the reason.
func (s *Server) Run(ctx context.Context, sc *Scenario, p Plan) *Result {
	start := time.Now()
	r := &Result{
		Number: sc.Number, Name: sc.Name, Title: sc.Title, Figure: sc.Figure, FixedBy: sc.FixedBy, At: start,
	}
	if err := s.halves(ctx, sc, p, r); err != nil {
		r.Error = err.Error()
	}
	r.Server = s.version
	r.Reproduced = r.Failure != nil && r.Failure.Value > sc.Tolerated
	r.Fixed = r.Fix != nil && r.Fix.Value <= sc.Tolerated
	r.Seconds = float64(time.Since(start).Round(100*time.Millisecond)) / float64(time.Second)
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
	if p.Before != nil {
		p.Before(name, sc)
	}
	if err := s.ensure(ctx, sc.ServerSlots()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	stage := &Stage{server: s, ctx: ctx, tally: newTally()}
	watch := &sampler{server: s, tally: stage.tally, observe: func(x Sample) {
		if p.Observe != nil {
			p.Observe(name, x)
		}
	}}
	stage.peak = watch.peak
	watch.connect(ctx)
	closed := sync.OnceFunc(func() { stage.close(cancel) })
	defer closed()
	if sc.Setup != nil {
		sc.Setup(stage)
	}
	request := v(stage)
	if stage.err == nil {
		stage.play(sc, request, watch)
	}
	o := stage.tally.outcome()
	o.Of, o.Slots, o.Peak, o.Samples = sc.of(), stage.Slots(), watch.peak(), watch.samples
	o.Value = o.Refused
	if sc.Value != nil {
		o.Value = sc.Value(stage)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("stopped: %w", err)
	}
	closed()
	if stage.err != nil {
		return nil, stage.err
	}
	return o, nil
}

// play sends the load while the server is sampled.
func (s *Stage) play(sc *Scenario, request Request, watch *sampler) {
	watching, stop := context.WithCancel(context.WithoutCancel(s.ctx))
	var watched, beside sync.WaitGroup
	watched.Go(func() { watch.run(watching) })
	if sc.During != nil {
		beside.Go(func() { sc.During(s) })
	}
	s.tally.run(s.ctx, sc.Load, request)
	beside.Wait()
	s.flush()
	stop()
	watched.Wait()
}

// ErrMissing is the error of a scenario whose program is not installed.
var ErrMissing = errors.New("is not installed")
