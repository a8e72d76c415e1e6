package admin

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Alarms holds the conditions that need an operator. Its methods are safe for
// concurrent use and do not block, and a nil *Alarms takes and shows nothing.
type Alarms struct {
	log     *slog.Logger
	changed func(al Alarm, active bool)

	mu     sync.Mutex // covers active
	active map[string]Alarm
}

// NewAlarms returns an empty registry. A raised and a cleared alarm are logged
// once each; the gauge gantry_admin_alarms counts the active ones.
func NewAlarms(log *slog.Logger, reg prometheus.Registerer) (*Alarms, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &Alarms{log: log, active: make(map[string]Alarm)}
	if reg != nil {
		err := reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gantry_admin_alarms",
			Help: "Alarms that are active now.",
		}, func() float64 { return float64(a.count()) }))
		if err != nil {
			return nil, err
		}
	}
	return a, nil
}

// OnChange sets what is told of each alarm that is raised or cleared. It must
// not block. Call it before the first alarm.
func (a *Alarms) OnChange(changed func(al Alarm, active bool)) {
	if a != nil {
		a.changed = changed
	}
}

func (a *Alarms) tell(al Alarm, active bool) {
	if a.changed != nil {
		a.changed(al, active)
	}
}

// Raise sets an alarm. An active one keeps its time and takes the new detail.
// The name is one of a small set, such as bridge_queue_full:cloud.
func (a *Alarms) Raise(name, detail string) {
	if a == nil {
		return
	}
	a.mu.Lock()
	al, was := a.active[name]
	if !was {
		al = Alarm{Name: name, Since: time.Now()}
	}
	al.Detail = detail
	a.active[name] = al
	a.mu.Unlock()
	if !was {
		a.log.Warn("alarm raised", "alarm", name, "detail", detail)
		a.tell(al, true)
	}
}

// Clear ends an alarm; one that is not active is left alone.
func (a *Alarms) Clear(name string) {
	if a == nil {
		return
	}
	a.mu.Lock()
	al, was := a.active[name]
	delete(a.active, name)
	a.mu.Unlock()
	if was {
		a.log.Info("alarm cleared", "alarm", name, "after", time.Since(al.Since).Round(time.Millisecond))
		a.tell(al, false)
	}
}

// List returns the active alarms, oldest first. The slice is the caller's.
func (a *Alarms) List() []Alarm {
	if a == nil {
		return []Alarm{}
	}
	a.mu.Lock()
	all := make([]Alarm, 0, len(a.active))
	for _, al := range a.active {
		all = append(all, al)
	}
	a.mu.Unlock()
	slices.SortFunc(all, func(x, y Alarm) int {
		return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Name, y.Name))
	})
	return all
}

func (a *Alarms) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.active)
}
