package admin

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDelayed(t *testing.T) {
	f := start(t, testDeps())
	var ids []uint64
	for after := uint64(0); ; {
		page, err := f.client.Delayed(context.Background(), after, 999)
		require.NoError(t, err)
		for _, d := range page.Delayed {
			ids = append(ids, d.ID)
		}
		if page.Next == 0 {
			break
		}
		after = page.Next
	}
	require.Len(t, ids, 2500)
	require.Equal(t, uint64(2500), ids[2499])
	page, err := f.client.Delayed(context.Background(), 2500, 10)
	require.NoError(t, err)
	require.NotNil(t, page.Delayed)
	require.Empty(t, page.Delayed)
	for _, q := range []string{"?limit=0", "?limit=x", "?after=-1", "?after=", "?page=2"} {
		res, _ := f.ask(t, "GET", "/api/v1/delayed"+q, nil)
		require.Equal(t, 400, res.StatusCode, q)
	}
}

func TestDeleteDelayed(t *testing.T) {
	f := start(t, testDeps())
	require.NoError(t, f.client.DeleteDelayed(context.Background(), 7))
	err := f.client.DeleteDelayed(context.Background(), 2501)
	problem, ok := errors.AsType[*APIError](err)
	require.True(t, ok)
	require.Equal(t, 404, problem.Status)
	res, body := f.ask(t, "DELETE", "/api/v1/delayed/666", nil)
	require.Equal(t, 500, res.StatusCode)
	require.NotContains(t, body, "secret")
	res, _ = f.ask(t, "DELETE", "/api/v1/delayed/x", nil)
	require.Equal(t, 400, res.StatusCode)
}
