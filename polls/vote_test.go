package polls_test

import (
	"bytes"
	"fmt"
	"maps"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"ddtb/polls"
)

func TestAVoteCountsOnceAndRedirectsToTheResults(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me", "You")
	a := s.vote(q, fmt.Sprint(ids[1]))
	if want := fmt.Sprintf("/polls/%d/results/", q); a.status != http.StatusFound || a.header.Get("Location") != want {
		t.Errorf("got %d to %q, want 302 to %s", a.status, a.header.Get("Location"), want)
	}
	s.vote(q, fmt.Sprint(ids[1]))
	if got, want := s.votes(), (map[int64]int64{ids[1]: 2}); !maps.Equal(got, want) {
		t.Errorf("votes: %v, want %v", got, want)
	}
}

func TestWithoutAValidChoiceTheFormComesBackAndNothingChanges(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me", "You")
	_, others := s.ask("Another", time.Hour, "Somebody")
	mine := fmt.Sprint(ids[0])
	for name, choice := range map[string][]string{
		"none": nil, "empty": {""}, "unknown": {"424242"}, "of another question": {fmt.Sprint(others[0])},
		"a word": {"me"}, "with a blank": {" " + mine}, "signed": {"+" + mine}, "negative": {"-" + mine}, "zero": {"0"},
		"twice": {mine, mine}, "two": {mine, fmt.Sprint(ids[1])}, "the largest bigint": {"9223372036854775807"},
		"20 digits": {"12345678901234567890"}, "a fraction": {mine + ".0"}, "SQL": {mine + " OR 1=1"}, "NUL": {mine + "\x00"},
	} {
		a := s.vote(q, choice...)
		if a.status != http.StatusOK || a.text("[role=alert]") != "You didn't select a choice." {
			t.Errorf("%s: %d %q", name, a.status, a.text("main"))
		}
		if a.Find(`form input[type="radio"]`).Length() != 2 || a.text("h1") != "Anyone?" {
			t.Errorf("%s: the form is not there: %s", name, a.body)
		}
		if a.Find("fieldset").AttrOr("aria-describedby", "") != a.Find("[role=alert]").AttrOr("id", "none") {
			t.Errorf("%s: the error is not told at the choices", name)
		}
	}
	if votes := s.votes(); len(votes) != 0 {
		t.Errorf("votes were counted: %v", votes)
	}
}

func TestAVoteIsReadFromAFormInTheBodyAlone(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me")
	id := fmt.Sprint(ids[0])
	path := fmt.Sprintf("/polls/%d/vote/", q)
	field, boundary := multipartBody(t, func(w *multipart.Writer) error { return w.WriteField("choice", id) })
	file, fileBoundary := multipartBody(t, func(w *multipart.Writer) error {
		part, err := w.CreateFormFile("choice", "choice.txt")
		if err == nil {
			_, err = part.Write([]byte(id))
		}
		return err
	})
	for name, tt := range map[string]struct {
		path, contentType, body string
		want                    int
	}{
		"a form":                     {path, urlencoded, "choice=" + id, http.StatusFound},
		"a form with its charset":    {path, urlencoded + "; charset=UTF-8", "other=1&choice=" + id, http.StatusFound},
		"a multipart form":           {path, boundary, field, http.StatusFound},
		"a file in a form":           {path, fileBoundary, file, http.StatusOK},
		"half a multipart form":      {path, boundary, field[:len(field)/2], http.StatusOK},
		"the wrong boundary":         {path, "multipart/form-data; boundary=x", field, http.StatusOK},
		"no boundary":                {path, "multipart/form-data", field, http.StatusOK},
		"the query":                  {path + "?choice=" + id, urlencoded, "", http.StatusOK},
		"a form, whatever the query": {path + "?choice=7", urlencoded, "choice=" + id, http.StatusFound},
		"JSON":                       {path, "application/json", `{"choice": ` + id + `}`, http.StatusOK},
		"no type":                    {path, "", "choice=" + id, http.StatusOK},
		"a type that is none":        {path, ";;;", "choice=" + id, http.StatusOK},
		"broken percents":            {path, urlencoded, "choice=%zz", http.StatusOK},
	} {
		before := s.votes()[ids[0]]
		a, err := s.do(http.MethodPost, tt.path, tt.contentType, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		counted := int64(0)
		if tt.want == http.StatusFound {
			counted = 1
		}
		if got := s.votes()[ids[0]] - before; a.status != tt.want || got != counted {
			t.Errorf("%s: %d, and %d votes more", name, a.status, got)
		}
	}
}

func multipartBody(t *testing.T, write func(*multipart.Writer) error) (body, contentType string) {
	t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	if err := write(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String(), w.FormDataContentType()
}

func TestABodyLargerThanAnyVoteIsRefused(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me")
	vote := fmt.Sprintf("choice=%d&padding=", ids[0])
	for size, want := range map[int]int{
		polls.MaxForm:     http.StatusFound,
		polls.MaxForm + 1: http.StatusRequestEntityTooLarge,
		10 << 20:          http.StatusRequestEntityTooLarge,
	} {
		body := vote + strings.Repeat("x", size-len(vote))
		a, err := s.do(http.MethodPost, fmt.Sprintf("/polls/%d/vote/", q), urlencoded, strings.NewReader(body))
		if err != nil || a.status != want {
			t.Errorf("%d bytes: %d %v, want %d", size, a.status, err, want)
		}
	}
	if got := s.votes()[ids[0]]; got != 1 {
		t.Errorf("%d votes", got)
	}
}

func TestAHundredVotesAtOnceCountAsExactlyAHundred(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me", "You")
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			a := s.vote(q, fmt.Sprint(ids[i%2]))
			if a.status != http.StatusFound {
				t.Errorf("vote %d: %d %s", i, a.status, a.text("main"))
			}
		})
	}
	wg.Wait()
	if got, want := s.votes(), (map[int64]int64{ids[0]: 50, ids[1]: 50}); !maps.Equal(got, want) {
		t.Errorf("votes: %v, want %v", got, want)
	}
}

func TestAGETOfTheVotingAddressShowsTheFormAndCountsNoVote(t *testing.T) {
	s := newSite(t)
	q, ids := s.ask("Anyone?", time.Hour, "Me")
	a := s.page("/polls/%d/vote/?choice=%d", q, ids[0])
	if got := a.text("[role=alert]"); got != "You didn't select a choice." {
		t.Errorf("got the message %q", got)
	}
	if got := a.Find(`form input[type="radio"]`).Length(); got != 1 {
		t.Errorf("the form has %d choices, want 1", got)
	}
	if len(s.votes()) != 0 {
		t.Error("a GET counted as a vote")
	}
}

func FuzzReadBallot(f *testing.F) {
	for _, body := range []string{
		"choice=1", "choice=1&choice=2", "choice=", "choice=%31", "choice=+1", "choice=99999999999999999999", "%zz", "a;b=1&choice=7",
		"--x\r\nContent-Disposition: form-data; name=\"choice\"\r\n\r\n12\r\n--x--\r\n", "--x\r\n\r\n--x",
	} {
		f.Add(urlencoded, body)
		f.Add("multipart/form-data; boundary=x", body)
	}
	f.Add("", "")
	f.Add(urlencoded, "choice=1&token=0123456789abcdef0123456789abcdef")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		id, token, complaint, err := polls.ReadBallot(contentType, body)
		if err == nil && (complaint == "") != (id > 0) || complaint != "" && token != (polls.Token{}) {
			t.Errorf("id %d, token %v, complaint %q, %v", id, token, complaint, err)
		}
	})
}
