package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term" // reads a password without showing it

	"ddtb/app/auth"
)

// prompt asks the user. A question ends with its context, so that Ctrl-C restores the terminal.
type prompt struct {
	*cli
	ctx     context.Context
	lines   *bufio.Reader
	instead string // what to do if there is no answer
}

// password asks twice, until both answers are equal and strong enough, or, if weak ones are allowed, the user confirms
// a weak one.
func (p *prompt) password(owner auth.User, mayBeWeak bool) (password string, err error) {
	for {
		first, err := p.askHidden("Password: ")
		if err != nil {
			return "", err
		}
		second, err := p.askHidden("Password (again): ")
		if err != nil {
			return "", err
		}
		problems := auth.ValidatePassword(first, owner)
		if first != second {
			problems = []string{"The two passwords are not the same."}
		}
		if len(problems) == 0 {
			return first, nil
		}
		p.say("%s\n", strings.Join(problems, "\n"))
		if mayBeWeak && first == second && first != "" && len(first) <= auth.MaxPassword {
			answer, err := p.ask("Bypass password validation and create user anyway? [y/N]: ")
			if err != nil || strings.EqualFold(answer, "y") {
				return first, err
			}
		}
	}
}

// confirm asks a question on the terminal, and returns an error that begins with refused unless the answer is yes. Where
// there is no terminal to ask on, hint says what to add.
func (c *cli) confirm(ctx context.Context, question, refused, hint string) error {
	if !isTerminal(c.in) {
		return usage("%s, because there is no terminal to ask on: %s", refused, hint)
	}
	answer, err := (&prompt{cli: c, ctx: ctx, lines: bufio.NewReader(c.in), instead: hint}).ask(question + " [y/N] ")
	if err == nil {
		c.say("\n")
		if a := strings.ToLower(answer); a == "y" || a == "yes" {
			return nil
		}
		err = errors.New(refused)
	}
	return &exitError{exitFailed, err}
}

func (p *prompt) ask(question string) (string, error) {
	p.say("%s", question)
	line, err := p.answer(p.readLine)
	if err != nil && line == "" {
		p.say("\n")
		return "", p.noAnswer(err)
	}
	return strings.TrimSpace(line), nil
}

// readLine reads up to a line break. What was typed ahead at a hidden question has carriage returns.
func (p *prompt) readLine() (string, error) {
	var line []byte
	for {
		b, err := p.lines.ReadByte()
		switch {
		case err != nil:
			return string(line), err
		case b == '\r' && p.lines.Buffered() > 0:
			if next, _ := p.lines.Peek(1); next[0] == '\n' {
				continue
			}
			return string(line), nil
		case b == '\r', b == '\n':
			return string(line), nil
		}
		line = append(line, b)
	}
}

// noAnswer explains why a question has no answer.
func (p *prompt) noAnswer(err error) error {
	if p.ctx.Err() != nil {
		return errors.New("interrupted: nothing was changed")
	}
	return fmt.Errorf("no answer: the input ended (%w): %s", err, cmp.Or(p.instead, "run it in a terminal"))
}

// askHidden does not show the answer on a terminal.
func (p *prompt) askHidden(question string) (string, error) {
	fd, is := terminal(p.in)
	if !is {
		return p.ask(question)
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer func() {
		_ = term.Restore(fd, before)
		p.say("\n")
	}()
	p.say("%s", question)
	keys := struct {
		io.Reader
		io.Writer
	}{byteByByte{p.lines}, io.Discard}
	password, err := p.answer(func() (string, error) { return term.NewTerminal(keys, "").ReadPassword("") })
	if errors.Is(err, io.EOF) { // Ctrl-D, and Ctrl-C, which is no signal meanwhile
		return "", errors.New("no password was typed: nothing was changed")
	}
	if err != nil {
		return "", p.noAnswer(err)
	}
	return password, nil
}

// byteByByte leaves to the next question what was typed ahead.
type byteByByte struct{ io.Reader }

// Read reads one byte.
func (b byteByByte) Read(p []byte) (int, error) { return b.Reader.Read(p[:1]) }

// answer waits for read or the end of the context; then read is abandoned until the process exits.
func (p *prompt) answer(read func() (string, error)) (string, error) {
	type result struct {
		line string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		line, err := read()
		done <- result{line, err}
	}()
	select {
	case r := <-done:
		return r.line, r.err
	case <-p.ctx.Done():
		return "", p.ctx.Err()
	}
}
