package lab

import (
	"errors"

	"github.com/labstack/echo/v4"

	"ddtb/app/report"
)

var errOnPurpose = errors.New("/error/ was asked for, and fails on purpose")

// Error fails, so that the page, the line in the log, the event and the mail of a bug can be seen.
func (l *Lab) Error(echo.Context) error { return report.WithStack(errOnPurpose) }
