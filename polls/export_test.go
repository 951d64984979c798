package polls

// Internals for the tests of package polls_test.
var NewToken = newToken

// ParseBallot returns the form's choice and token, or the complaint if it is no vote.
func ParseBallot(contentType, body string) (choice int64, token Token, complaint string) {
	b, complaint := parseBallot(contentType, []byte(body))
	return b.choice, b.token, complaint
}

const (
	LatestSQL = latestSQL
	MaxForm   = maxForm
)
