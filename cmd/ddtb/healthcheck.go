package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"
)

func (c *cli) healthcheckCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "healthcheck [ADDR]",
		Short: "Ask a running server whether it answers",
		Long: `Ask the server on ADDR, HOST:PORT or a port alone, whether it answers.

Without ADDR it is the configuration's server.addr. A container's probe should
name ADDR: then the configuration is not read, and a mistake in it, with which a
running server goes on as before, does not make that look unhealthy.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			addr, err := c.probed(args)
			if err != nil {
				return err
			}
			return c.healthcheck(cmd.Context(), addr, path)
		},
	}
	cmd.Flags().StringVar(&path, "path", "/healthz", "what to ask for: /healthz, or /readyz to include the database")
	return cmd
}

const healthcheckTimeout = 3 * time.Second

// probed returns the server's address. If the configuration can't be read, it does not guess: a different server may
// answer there.
func (c *cli) probed(args []string) (addr string, err error) {
	if len(args) == 1 {
		addr = address(args[0])
	} else {
		cfg, err := c.load(c.options())
		if err != nil {
			return "", fmt.Errorf("%w\nA running server goes on as before. To ask it all the same: ddtb healthcheck HOST:PORT", err)
		}
		addr = cfg.Server.Addr
	}
	return reachable(addr)
}

// reason returns what an answer says in one line: the detail of a JSON answer, or a short line of text. A page of HTML
// says no more than the status.
func reason(body []byte) string {
	var problem struct{ Detail string }
	text := strings.TrimSpace(string(body))
	if json.Unmarshal(body, &problem) == nil {
		text = problem.Detail
	}
	if text == "" || strings.HasPrefix(text, "<") {
		return ""
	}
	first, _, _ := strings.Cut(text, "\n")
	return ": " + ansi.Truncate(first, 200, "…")
}

// reachable returns an address at which a server that listens on addr can be reached.
func reachable(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 1 || n > 65535 {
		return "", usage("the address %q is not HOST:PORT or a port alone, from 1 to 65535", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

func (c *cli) healthcheck(ctx context.Context, addr, path string) error {
	url := "http://" + addr + "/" + strings.TrimPrefix(path, "/")
	status, body, err := ask(ctx, addr, path, 4<<10)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(status, "200 ") {
		return fmt.Errorf("%s answers %s%s", url, status, reason(body))
	}
	c.say("%s answers %s\n", url, status)
	return nil
}
