package polls

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
)

// Internals for the tests of package polls_test.
var NewToken = newToken

// ReadBallot returns the form's choice and token, or the complaint if it is no vote.
func ReadBallot(contentType, body string) (choice int64, token Token, complaint string, err error) {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	b, complaint, err := readBallot(httptest.NewRecorder(), r)
	return b.choice, b.token, complaint, err
}

const (
	LatestSQL    = latestSQL
	PublishedSQL = publishedSQL
	MaxForm      = maxForm
)
