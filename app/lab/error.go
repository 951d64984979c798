package lab

import (
	"errors"

	"github.com/labstack/echo/v4"

	"ddtb/app/report"
)

var errOnPurpose = errors.New("/error/ was asked for, and fails on purpose")

// Error fails, to demonstrate the page, log line, event and mail of a bug.
func (l *Lab) Error(echo.Context) error { return report.WithStack(errOnPurpose) }
