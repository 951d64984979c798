package scene

import (
	"context"
	"time"
)

const sampleEvery = 25 * time.Millisecond

// A login that is being refused has no name yet, and uses no application slot.
const sampleSQL = `SELECT count(*), count(*) FILTER (WHERE state = 'active'),
	count(*) FILTER (WHERE state LIKE 'idle in transaction%') FROM pg_stat_activity
	WHERE backend_type = 'client backend' AND usename IN ('` + appRole + `', '` + otherRole + `')`

// sampler counts the backends of a run on the server, over a superuser's session that the server keeps for it. While
// the server is down there are no samples.
type sampler struct {
	server  *Server
	tally   *tally
	observe func(Sample)
	samples []Sample
}

// run samples until ctx ends, and once afterwards.
func (p *sampler) run(ctx context.Context) {
	start := time.Now()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		p.sample(time.Since(start))
		select {
		case <-ctx.Done():
			p.sample(time.Since(start))
			return
		case <-tick.C:
		}
	}
}

// connect takes the sampler's slot before the scenario takes all slots.
func (p *sampler) connect(ctx context.Context) {
	if c := p.server.watcher; c == nil || c.IsClosed() {
		p.server.watcher = nil
		if conn, err := p.server.connect(ctx); err == nil {
			p.server.watcher = conn
		}
	}
}

func (p *sampler) sample(at time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p.connect(ctx)
	if p.server.watcher == nil {
		return
	}
	s := Sample{At: at}
	if err := p.server.watcher.QueryRow(ctx, sampleSQL).Scan(&s.Backends, &s.Active, &s.InTx); err != nil {
		return
	}
	s.Served, s.Refused = p.tally.now()
	p.samples = append(p.samples, s)
	p.observe(s)
}

func (p *sampler) peak() (peak int) {
	for _, s := range p.samples {
		peak = max(peak, s.Backends)
	}
	return peak
}
