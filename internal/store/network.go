package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"banger"
)

// CreateNetwork stores a network. It returns an *Error of CodeConflict when the name
// is taken.
func (s *Store) CreateNetwork(ctx context.Context, n banger.Network) error {
	doc, err := json.Marshal(n)
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, `INSERT INTO network (name, document) VALUES (?, ?)`, n.Name, string(doc))
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY {
		return banger.Errorf(banger.CodeConflict, "a network called %q exists already", n.Name).
			WithHint("see: banger network ls")
	}
	return err
}

// DeleteNetwork removes a network. It returns no error if the network does not exist.
func (s *Store) DeleteNetwork(ctx context.Context, name string) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM network WHERE name = ?`, name)
	return err
}

// Networks returns all networks, sorted by name.
func (s *Store) Networks(ctx context.Context) ([]banger.Network, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT name, document FROM network ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []banger.Network
	for rows.Next() {
		var n banger.Network
		var name, doc string
		if err := rows.Scan(&name, &doc); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(doc), &n); err != nil {
			return nil, fmt.Errorf("the row of network %s: %w", name, err)
		}
		list = append(list, n)
	}
	return list, rows.Err()
}
