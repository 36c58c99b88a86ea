package storage

import (
	"encoding/json"
	"fmt"

	"github.com/exitgate/exitgate"
)

// DecodeFlow reads what [AppendRecord] and [AppendQuestion] wrote.
func DecodeFlow(record, question []byte) (*exitgate.Flow, error) {
	f := new(exitgate.Flow)
	if err := json.Unmarshal(record, f); err != nil {
		return nil, fmt.Errorf("read the stored record of a flow: %w", err)
	}
	if err := json.Unmarshal(question, &f.Question); err != nil {
		return nil, fmt.Errorf("read the stored question of flow %s: %w", f.ID, err)
	}
	return f, nil
}
