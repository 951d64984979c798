// Package polls is the application that everything else here serves: questions, their choices, and votes, in the
// behaviour, the tables and the columns of Django's tutorial, so that both can share a database.
//
// It promises that a question is invisible and takes no votes until it is published, that N votes at once count
// as exactly N, that a form which is sent again, because nobody knows whether it arrived, counts once within a day,
// and that each page costs one query, because under some strategies each query is a lease.
// It must not know how a connection is got, what went wrong when there is none, who is signed in, or the admin.
package polls

import (
	"fmt"
	"time"
)

// Question is what people are asked. The public sees it from PubDate on.
type Question struct {
	ID      int64
	Text    string
	PubDate time.Time
	Choices []Choice // in the order in which they were made; nil in a list
}

// Choice is one of the answers to its question.
type Choice struct {
	ID    int64
	Text  string
	Votes int64
}

// recently is how long a question counts as new.
const recently = 24 * time.Hour

// WasPublishedRecently reports whether the question came out within the day that ends now, both ends included. A
// question of the future did not come out yet.
func (q Question) WasPublishedRecently(now time.Time) bool {
	return !q.PubDate.Before(now.Add(-recently)) && !q.PubDate.After(now)
}

// Votes is the sum over all choices. Less than none, which the column allows, counts as none.
func (q Question) Votes() int64 {
	var sum int64
	for _, c := range q.Choices {
		sum += max(c.Votes, 0)
	}
	return sum
}

// Most is the number of votes of the choice, or the choices, in the lead; 0 when nobody voted.
func (q Question) Most() int64 {
	var most int64
	for _, c := range q.Choices {
		most = max(most, c.Votes)
	}
	return most
}

// Percent is the share of the choice in all votes, from 0 to 100.
func (q Question) Percent(c Choice) float64 {
	if c.Votes <= 0 {
		return 0 // also when there are no votes to share
	}
	return 100 * float64(c.Votes) / float64(q.Votes())
}

// Share is Percent in words for people, rounded, but never so far that a vote disappears or a minority does.
func (q Question) Share(c Choice) string {
	switch p := q.Percent(c); {
	case p > 0 && p < 1:
		return "under 1 %"
	case p > 99 && p < 100:
		return "over 99 %"
	default:
		return fmt.Sprintf("%.0f %%", p)
	}
}

// Where the pages are, as routes: an id stands for ":id". Each ends in a slash; the same address without it
// redirects to it.
const (
	ListRoute    = "/polls/"
	DetailRoute  = "/polls/:id/"
	ResultsRoute = "/polls/:id/results/"
	VoteRoute    = "/polls/:id/vote/" // POST only
)

// Path is the address of the question's page.
func (q Question) Path() string { return fmt.Sprintf("/polls/%d/", q.ID) }
