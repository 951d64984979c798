package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ddtb/config"
	"ddtb/db"
)

const strategyKey = "databases.default.strategy"

// inForceWithin is the maximum wait for a running server to apply the file. It does so within a second.
const inForceWithin = 10 * time.Second

func (c *cli) strategyCommand() *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:   "strategy [NAME]",
		Short: "Show the strategy, or switch that of the running server",
		Long: `Without NAME, show the strategy of the configuration file, the one in force in
the running server, and the others.

With NAME, write it to the configuration file, and return when the running
server uses it. Requests under way end with the strategy they began with; none
fails.

` + strategyList(),
		ValidArgs: db.Names(),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := c.load(c.options())
			if err != nil {
				return err
			}
			if addr, err = reachable(address(cmp.Or(addr, cfg.Server.Addr))); err != nil {
				return err
			}
			if len(args) == 0 {
				return c.showStrategy(cmd.Context(), cfg, addr)
			}
			return c.switchStrategy(cmd.Context(), cfg, addr, args[0])
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "", "the running server, HOST:PORT (default: server.addr)")
	return cmd
}

func strategyList() string {
	var b strings.Builder
	for _, s := range db.Strategies() {
		b.WriteString(item(fmt.Sprintf("  %-12s ", s.Name), s.Description))
	}
	return strings.TrimRight(b.String(), "\n")
}

func (c *cli) showStrategy(ctx context.Context, cfg *config.Config, addr string) error {
	c.say("configured   %s\n", cfg.Databases["default"].Strategy)
	inForce := "no ddtb server answers on " + addr
	if s, err := askServer(ctx, addr); err == nil {
		inForce = s.Info.Strategy
	}
	c.say("in force     %s\n\n%s\n", inForce, strategyList())
	return nil
}

func (c *cli) switchStrategy(ctx context.Context, cfg *config.Config, addr, name string) error {
	if _, known := db.Lookup(name); !known {
		return usage("there is no strategy %q: take one of %s", name, strings.Join(db.Names(), ", "))
	}
	if cfg.File == "" {
		return errors.New("there is no configuration file to write it to: `ddtb run` and `ddtb config init` make one")
	}
	if o := cfg.Origins[strategyKey]; o.Variable != "" {
		return fmt.Errorf("%s sets the strategy and overrides the file: change it there", o)
	}
	server, down := askServer(ctx, addr)
	if down == nil && server.Configuration != config.Version(cfg.File) { // a change of this file switches the server that reads it
		return fmt.Errorf("the server on %s does not read %s, so nothing was written: name its file with --config, "+
			"or switch on its dashboard, http://%s/admin/connections/", addr, cfg.File, addr)
	}
	if err := config.SetText(cfg.File, strategyKey, name); err != nil {
		return err
	}
	if _, err := c.load(c.options()); err != nil { // for the warnings of the new strategy
		return err
	}
	if down != nil {
		c.say("%s: strategy = %q. No ddtb server answers on %s: it holds from the next start.\n", cfg.File, name, addr)
		return nil
	}
	now := server.Info.Strategy
	err := c.awaitStrategy(ctx, cfg.File, addr, now, name)
	if err != nil && ctx.Err() == nil && cfg.Databases["default"].Strategy == name && cfg.Origins[strategyKey].File != "" { // the file has not changed
		return fmt.Errorf("%s said %q already, and the server on %s uses %q: somebody switched it on its dashboard, so switch it "+
			"back on http://%s/admin/connections/ or restart it; or it refused the file, and its log says why", cfg.File, name, addr, now, addr)
	}
	return err
}

// awaitStrategy returns when the running server, which uses the strategy now, uses the one of that name.
func (c *cli) awaitStrategy(ctx context.Context, file, addr, now, name string) error {
	ctx, cancel := context.WithTimeout(ctx, inForceWithin)
	defer cancel()
	for now != name {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was written, but after %v the server on %s still uses %q: "+
				"its log says why, or it reads another file (--config)", file, inForceWithin, addr, now)
		case <-time.After(50 * time.Millisecond):
		}
		if s, err := askServer(ctx, addr); err == nil {
			now = s.Info.Strategy
		}
	}
	c.say("%s: strategy = %q. The server on %s uses it.\n", file, name, addr)
	return nil
}

// running is what a running server says of itself.
type running struct {
	Info struct {
		Strategy string `json:"strategy"`
	} `json:"connection_info"`
	Configuration string `json:"configuration"` // see config.Version
}

func askServer(ctx context.Context, addr string) (s running, err error) {
	_, body, err := ask(ctx, addr, "/", 64<<10)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(body, &s); err != nil || s.Info.Strategy == "" {
		return s, fmt.Errorf("what answers on %s is no ddtb", addr)
	}
	return s, nil
}

// ask queries a server on this machine, without the environment's proxy: the server itself must answer.
func ask(ctx context.Context, addr, path string, most int64) (status string, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/"+strings.TrimPrefix(path, "/"), nil)
	if err != nil {
		return "", nil, err
	}
	req.Header.Set("Accept", "application/json")
	client := http.Client{
		Transport:     &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok { // it repeats the address
			err = e.Err
		}
		return "", nil, fmt.Errorf("no answer from %s: %w. Is the server running?", addr, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, most))
	return resp.Status, body, err
}
