package app_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"ddtb/app"
	"ddtb/config"
	"ddtb/db/dbtest"
)

func withAgent(c *config.Config) { c.Server.AgentAddr = "127.0.0.1:0" }

// dialAgent connects to the agent, as HAProxy does.
func (s *site) dialAgent() *net.TCPConn {
	s.t.Helper()
	c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", s.AgentAddr())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// askAgent is the agent's answer, "" when there is none.
func (s *site) askAgent() string {
	c := s.dialAgent()
	defer func() { _ = c.Close() }()
	answer, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(answer)
}

func TestTheAgentAnswersOneLineAndCloses(t *testing.T) {
	t.Parallel()
	s := newSite(t, withAgent)
	if got := s.askAgent(); got != "up ready 100%\n" {
		t.Errorf("%q", got)
	}
	t.Run("to one that sends something first", func(t *testing.T) {
		for range 50 {
			c := s.dialAgent()
			if _, err := io.WriteString(c, strings.Repeat("hello\n", 100)); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); err != nil || string(got) != "up ready 100%\n" {
				t.Fatalf("%q, %v", got, err)
			}
			_ = c.Close()
		}
	})
}

func TestTheAgentOfACrowdAnswersAgainWhenTheyAreGone(t *testing.T) {
	t.Parallel()
	s := newSite(t, withAgent)
	var crowd []net.Conn
	for range 50 { // that ask and don't leave
		crowd = append(crowd, s.dialAgent())
	}
	refused := 0
	for _, c := range crowd {
		if answer, err := io.ReadAll(c); err != nil || len(answer) == 0 {
			refused++
		}
	}
	if refused < 20 {
		t.Errorf("%d of 50 were turned away at once", refused)
	}
	dbtest.Eventually(t, "the agent answers", func() bool { return s.askAgent() == "up ready 100%\n" })
}

func TestTheAgentSaysDownWithTheCauseWhileNoRequestCanGetAConnection(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{})
	s := siteOn(t, server.Config(t), withAgent)
	server.Stop(t, "immediate")
	dbtest.Eventually(t, "the agent says so", func() bool { return s.askAgent() == "down #server unavailable\n" })
	mustContain(t, s.get("/readyz"), 503, `"cause":"server unavailable"`)
	server.Start(t)
	dbtest.Eventually(t, "and that it is over", func() bool { return s.askAgent() == "up ready 100%\n" })
}

func TestAStopWaitsUntilABalancerHasHeardOfIt(t *testing.T) {
	t.Parallel()
	stop := func(s *site) (ended chan error) {
		ended = make(chan error, 1)
		go func() { ended <- s.stop() }()
		return ended
	}
	t.Run("and no longer", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, withAgent)
		s.askAgent()
		ended, began := stop(s), time.Now()
		dbtest.Eventually(t, "it is told", func() bool { return s.askAgent() == "drain\n" })
		if err := <-ended; err != nil || time.Since(began) > 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
	t.Run("for a part of shutdown_timeout", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, func(c *config.Config) { withAgent(c); c.Server.ShutdownTimeout = 2 * time.Second })
		s.askAgent() // and not again
		ended, began := stop(s), time.Now()
		if err := <-ended; err != nil || time.Since(began) < 800*time.Millisecond || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestAStopServesOnForTheTimeThatDrainSays(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) { c.Server.Drain = time.Second })
	var stopping sync.WaitGroup
	began := time.Now()
	stopping.Go(func() {
		if err := s.stop(); err != nil || time.Since(began) < time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
	dbtest.Eventually(t, "it is unready", func() bool { return s.get("/readyz").StatusCode == 503 })
	if a := s.get("/polls/"); a.StatusCode != 200 || !a.Close {
		t.Errorf("%s, close: %v", a.Status, a.Close)
	}
	stopping.Wait()
}

func TestAnAgentsAddressThatIsTakenIsNamed(t *testing.T) {
	t.Parallel()
	s := newSite(t, withAgent)
	cfg := *s.cfg
	cfg.Server.AgentAddr = s.AgentAddr()
	_, err := app.New(t.Context(), &cfg, slog.New(slog.DiscardHandler), app.Options{})
	if err == nil || !strings.Contains(err.Error(), "server.agent_addr") || !strings.Contains(err.Error(), s.AgentAddr()) {
		t.Errorf("%v", err)
	}
}
