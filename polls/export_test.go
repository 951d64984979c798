package polls

// What the tests of package polls_test look at from within.
var NewToken = newToken

// ParseBallot tells what the form chooses, and with which token; what it complains of is no vote.
func ParseBallot(contentType, body string) (choice int64, token Token, complaint string) {
	b, complaint := parseBallot(contentType, []byte(body))
	return b.choice, b.token, complaint
}

const (
	LatestSQL = latestSQL
	MaxForm   = maxForm
)
