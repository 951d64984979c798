// Package config reads the configuration file, the environment and the flags. The result is one complete Config within
// its bounds, or a list of all mistakes.
//
// What callers can rely on:
//
//   - A key is set by the last of: its default (see Default), the file, the environment, a flag.
//   - Nothing is ignored silently. An unknown key, a wrong type, a value out of bounds, a duplicate key and an
//     impossible combination are rejected with file, line and column, or with the variable's name. The message says
//     what was found, what is allowed, and the nearest valid name.
//   - A secret never appears in a message, a log or any other output: see Secret.
//   - The origin of every value is known: see Config.Origins and WriteTOML.
//
// It does not depend on the use of the values, opens no connection, and starts no goroutine.
package config

import (
	"time"

	"ddtb/db"
)

// Config is everything that the file and the environment can set. Load returns it complete: every field has its default
// or the configured value, within its bounds.
//
// The tag "toml" is the key's name. The names of the variables derive from it: pool.max_size of the default database is
// DDTB_DATABASES_DEFAULT_POOL_MAX_SIZE. The tag "allow" is the bound, in the syntax of values.go.
type Config struct {
	Databases map[string]Database `toml:"databases"` // "default", always, and "replica" if the file has one
	Fleet     Fleet               `toml:"fleet"`
	Server    Server              `toml:"server"`
	Admin     Admin               `toml:"admin"`
	Mail      Mail                `toml:"mail"`
	Sentry    Sentry              `toml:"sentry"`
	Tracing   Tracing             `toml:"tracing"`
	Test      Test                `toml:"test"`
	Monitor   Monitor             `toml:"monitor"`

	File      string            `toml:"-"` // the file that was read, or "" when there was none
	FileState string            `toml:"-"` // a hash of its content, or why it could not be read, for Watch
	Origins   map[string]Origin `toml:"-"` // by key, "databases.default.port"; absent: the default. An inherited value has the primary's
	Warnings  []string          `toml:"-"` // for a person to read, one sentence each
}

// Database is one PostgreSQL database and the way requests acquire connections to it. It is package db's settings,
// which this package fills by the tags of their fields.
type Database = db.Settings

// Secret is a string that is never printed. go-toml's encoder does not call MarshalText on string types: only
// WriteTOML may write a Config.
type Secret = db.Secret

// Fleet is shared by all processes of the deployment.
type Fleet struct {
	Budget int `toml:"budget" allow:"0..100000"` // connections of all pools whose max_size is "auto"; 0: see db.DefaultBudget
}

// Server sets where and how the application listens.
type Server struct {
	Addr            string        `toml:"addr" allow:"addr"`
	AgentAddr       string        `toml:"agent_addr" allow:"agent"` // of HAProxy's agent-check; "": off
	Replicas        int           `toml:"replicas" allow:"1..1000"` // how many processes like this one share the database
	StrictBudget    bool          `toml:"strict_budget"`
	TrustedProxies  []string      `toml:"trusted_proxies" allow:"network"` // addresses or CIDR ranges
	ShutdownTimeout time.Duration `toml:"shutdown_timeout" allow:"100ms..10m"`
	Drain           time.Duration `toml:"drain" allow:"0|100ms..5m"` // a stop serves on for at least this long
	BaseURL         string        `toml:"base_url" allow:"url"`
	AllowedHosts    []string      `toml:"allowed_hosts" allow:"host"` // by which the test endpoints may be called
}

// Admin sets the staff pages.
type Admin struct {
	SessionAge time.Duration `toml:"session_age" allow:"1m..8760h"`
}

// Mail sets how failures are reported to Admins.
type Mail struct {
	Backend       string    `toml:"backend" allow:"smtp|console|file|none"`
	Host          string    `toml:"host" allow:"host"`
	Port          int       `toml:"port" allow:"1..65535"`
	User          string    `toml:"user"`
	PasswordFile  string    `toml:"password_file" allow:"path"`
	Password      Secret    `toml:"-"` // the content of PasswordFile
	TLS           string    `toml:"tls" allow:"starttls|tls|none"`
	Dir           string    `toml:"dir" allow:"path"` // of the file backend
	From          string    `toml:"from" allow:"mail"`
	Admins        []string  `toml:"admins" allow:"mails"`
	SubjectPrefix string    `toml:"subject_prefix"`
	Limit         MailLimit `toml:"limit"`
}

// MailLimit limits both mails and Sentry events.
type MailLimit struct {
	Window  time.Duration `toml:"window" allow:"1s..24h"`    // one mail a fingerprint in it
	PerHour int           `toml:"per_hour" allow:"1..10000"` // over all fingerprints
}

// Sentry is disabled without a DSN.
type Sentry struct {
	DSN              Secret  `toml:"dsn" allow:"dsn"`
	Environment      string  `toml:"environment" allow:"environment"`
	TracesSampleRate float64 `toml:"traces_sample_rate" allow:"0..1"`
	Spotlight        bool    `toml:"spotlight"`
}

// Tracing sends OpenTelemetry traces. It is disabled without an Endpoint.
type Tracing struct {
	Endpoint   string  `toml:"endpoint" allow:"url"` // of an OTLP/HTTP collector, to which /v1/traces is added
	Headers    Secret  `toml:"headers" allow:"headers"`
	SampleRate float64 `toml:"sample_rate" allow:"0..1"` // of the requests that come without a traceparent
}

// HeaderMap returns the decoded Headers.
func (t Tracing) HeaderMap() map[string]string {
	headers, _ := parseHeaders(t.Headers.Reveal()) // Load has rejected malformed headers
	return headers
}

// Test limits the test endpoints, which are disabled unless Enabled.
type Test struct {
	Enabled    bool          `toml:"enabled"`
	MaxThreads int           `toml:"max_threads" allow:"1..10000"`
	MaxHold    time.Duration `toml:"max_hold" allow:"1ms..10m"`
}

// Monitor configures the sampler, which the dashboard and the health verdict use.
type Monitor struct {
	Interval  time.Duration `toml:"interval" allow:"100ms..1h"`
	Warn      int           `toml:"warn" allow:"1..100"`       // % of the usable slots
	Critical  int           `toml:"critical" allow:"1..100"`   // % of the usable slots
	IdleRatio int           `toml:"idle_ratio" allow:"1..100"` // % of the sessions that are idle
}

// Default returns the defaults. ddtb.toml explains each value; a test keeps the two identical.
func Default() Config {
	return Config{
		Databases: map[string]Database{"default": db.DefaultSettings()},
		Server: Server{
			Addr:            "127.0.0.1:8000", // as runserver's: seen from this machine alone
			Replicas:        1,
			ShutdownTimeout: 10 * time.Second, // docker stop's timeout
		},
		Admin: Admin{SessionAge: 14 * 24 * time.Hour}, // Django's SESSION_COOKIE_AGE
		Mail: Mail{
			Backend:       "none",
			Host:          "localhost",
			Port:          25,
			TLS:           "starttls",
			From:          "ddtb@localhost",
			SubjectPrefix: "[ddtb] ",
			Limit:         MailLimit{Window: 10 * time.Minute, PerHour: 20},
		},
		Sentry:  Sentry{Environment: "production"},
		Tracing: Tracing{SampleRate: 1},
		Test:    Test{MaxThreads: 100, MaxHold: time.Minute},
		Monitor: Monitor{Interval: 2 * time.Second, Warn: 70, Critical: 85, IdleRatio: 50},
	}
}
