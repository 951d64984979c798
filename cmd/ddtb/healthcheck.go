package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

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
		Args: cobra.MaximumNArgs(1),
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

// reachable returns an address at which a server that listens on addr can be reached.
func reachable(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", usage("the address %q is not HOST:PORT or a port alone", addr)
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
		return fmt.Errorf("%s answers %s: %s", url, status, strings.TrimSpace(string(body)))
	}
	c.say("%s answers %s\n", url, status)
	return nil
}
