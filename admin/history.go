package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app/auth"
	"ddtb/app/web"
	"ddtb/db"
)

// The flags of django_admin_log.
const (
	flagAddition = 1
	flagChange   = 2
	flagDeletion = 3
)

var flagNames = []string{flagAddition: "Addition", flagChange: "Change", flagDeletion: "Deletion"}

// change is a part of a change message, in Django's JSON, so that each can read the other's history. It has one of the
// keys added, changed and deleted.
type change map[string]changed

const (
	added   = "added"
	edited  = "changed"
	deleted = "deleted"
)

// changed is the change of the object itself, or of the named inline object.
type changed struct {
	Name   string   `json:"name,omitempty"`
	Object string   `json:"object,omitempty"`
	Fields []string `json:"fields,omitempty"`
}

// note writes a history entry, in the transaction of the change.
func (r *request) note(q db.Querier, flag int, id int64, label string, changes []change) error {
	text := ""
	if flag != flagDeletion {
		body, _ := json.Marshal(append([]change{}, changes...)) // none of its types can fail
		text = string(body)
	}
	return writeEntry(r.ctx, q, strconv.FormatInt(id, 10), cut(label, 200), flag, text, r.model.App.Name, r.model.Name, r.user.ID)
}

// Record writes a history entry through q about something that is not a row. object is its name; message describes the
// change in a sentence.
func Record(ctx context.Context, q db.Querier, by *auth.User, object, message string) error {
	return writeEntry(ctx, q, nil, cut(object, 200), flagChange, message, "", "", by.ID)
}

func writeEntry(ctx context.Context, q db.Querier, args ...any) error {
	_, err := q.Exec(ctx, `INSERT INTO django_admin_log
		(action_time, object_id, object_repr, action_flag, change_message, content_type_id, user_id)
		VALUES (now(), $1, $2, $3, $4, (SELECT id FROM django_content_type WHERE app_label = $5 AND model = $6), $7)`, args...)
	if err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return nil
}

// readable formats a change message in Django's words. A message that is not JSON is from an older Django.
func readable(text string) string {
	var changes []change
	if !strings.HasPrefix(text, "[") || json.Unmarshal([]byte(text), &changes) != nil {
		return text
	}
	var sentences []string
	for _, c := range changes {
		for _, verb := range []string{added, edited, deleted} {
			if what, ok := c[verb]; ok {
				sentences = append(sentences, what.sentence(web.Capitalized(verb)))
			}
		}
	}
	if len(sentences) == 0 {
		return "No fields changed."
	}
	return strings.Join(sentences, " ")
}

func (c changed) sentence(verb string) string {
	what := ""
	if len(c.Fields) > 0 {
		what = " " + enumerate(c.Fields)
	}
	switch {
	case c.Name == "":
		return verb + what + "."
	case what != "":
		return fmt.Sprintf("%s%s for %s “%s”.", verb, what, c.Name, c.Object)
	}
	return fmt.Sprintf("%s %s “%s”.", verb, c.Name, c.Object)
}

func enumerate(items []string) string {
	if len(items) < 2 {
		return strings.Join(items, "")
	}
	return strings.Join(items[:len(items)-1], ", ") + " and " + items[len(items)-1]
}

// entry is one line of a history.
type entry struct {
	Time             time.Time
	User             string
	Flag             int
	Message          string
	Object, ObjectID string
	App, Name        string // of the model
	Path             string // of the object, if it exists and is visible
	Kind             string
}

const entrySQL = `SELECT l.action_time, u.username, l.action_flag, l.change_message, l.object_repr,
	coalesce(l.object_id, ''), coalesce(ct.app_label, ''), coalesce(ct.model, '')
	FROM django_admin_log l JOIN auth_user u ON u.id = l.user_id
	LEFT JOIN django_content_type ct ON ct.id = l.content_type_id `

// ofObject selects the entries of one object, by application, model and id.
const ofObject = `WHERE ct.app_label = $1 AND ct.model = $2 AND l.object_id = $3`

func readEntries(ctx context.Context, q db.Querier, where string, args ...any) ([]entry, error) {
	found, err := q.Query(ctx, entrySQL+where, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, func(r pgx.CollectableRow) (e entry, err error) {
		err = r.Scan(&e.Time, &e.User, &e.Flag, &e.Message, &e.Object, &e.ObjectID, &e.App, &e.Name)
		e.Message, e.Kind, e.Time = readable(e.Message), e.Name, e.Time.UTC()
		return e, err
	})
}

func (r *request) recent() ([]entry, error) {
	entries, err := readEntries(r.ctx, r.site.DB.Read(),
		`WHERE l.user_id = $1 ORDER BY l.action_time DESC, l.id DESC LIMIT 10`, r.user.ID)
	if err != nil {
		return nil, fmt.Errorf("recent actions: %w", err)
	}
	for i := range entries {
		e := &entries[i]
		for _, m := range models {
			if m.App.Name == e.App && m.Name == e.Name {
				e.Kind = web.Capitalized(m.Singular)
				if id, err := strconv.ParseInt(e.ObjectID, 10, 64); err == nil && e.Flag != flagDeletion && r.can(m, actionView) {
					e.Path = m.path(id, "change")
				}
			}
		}
	}
	return entries, nil
}

type historyPage struct {
	frame
	Entries []entry
	Newer   int // the page with newer entries; 0: none
	Older   int
}

// history lists the changes of one object, oldest first, as Django does.
func (s *Site) history(r *request) error {
	page, err := strconv.Atoi(r.QueryParam("p"))
	if err != nil || page < 1 || page > maxPage {
		page = 1
	}
	q := s.DB.Read()
	object, err := r.model.find(r.ctx, q, nil, r.id, "")
	if err != nil {
		return err
	}
	of := func(page int) ([]entry, error) {
		return readEntries(r.ctx, q, ofObject+` ORDER BY l.action_time, l.id LIMIT $4 OFFSET $5`,
			r.model.App.Name, r.model.Name, strconv.FormatInt(r.id, 10), pageSize+1, (page-1)*pageSize)
	}
	entries, err := of(page)
	if err == nil && len(entries) == 0 && page > 1 { // beyond the end
		page = 1
		entries, err = of(page)
	}
	if err != nil {
		return err
	}
	data := historyPage{Entries: entries, Older: page - 1}
	data.frame = r.frame("Change history: "+r.called(object.label), r.crumbs(&object, "History")...)
	if len(entries) > pageSize {
		data.Entries, data.Newer = entries[:pageSize], page+1
	}
	return r.show(http.StatusOK, "history.html", data)
}
