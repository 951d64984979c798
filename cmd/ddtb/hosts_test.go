package main

import (
	"fmt"
	"net"
	"strconv"
	"testing"

	"ddtb/db"
)

func TestHostsThatDoNotAnswerAreReportedWhileTheStartWaitsForThem(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	for range 3 {
		cfg.Hosts += db.Hosts(fmt.Sprintf("127.0.0.1:%d,", silentServer(t)))
	}
	cfg.Hosts += db.Hosts(net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port)))
	m.configure(cfg, `connect_timeout = "3s"`)
	p := m.start("runserver", "127.0.0.1:0")
	p.logs(1, "level=WARN", "the database does not answer yet", "hosts=4", "connect_timeout=3s")
	if p.log.Count("serves on") > 0 {
		t.Errorf("it is reported after the wait:\n%s", p.log)
	}
	p.logs(1, "serves on")
}
