package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"gantry/broker"
	"gantry/broker/auth"
	"gantry/gateway/admin"
	"gantry/gateway/config"
	"gantry/persist/embedded"
	"gantry/persist/seglog"
)

// Gateway is the whole appliance.
type Gateway struct {
	cfg       *config.Config
	node      string
	log       *slog.Logger
	reg       *prometheus.Registry
	startedAt time.Time

	store     *embedded.Store
	bridges   []*bridgePart
	broker    *broker.Broker
	listeners []listener
	certs     []certificate
	alarms    *admin.Alarms
	watch     *watch
	sys       *sysTopics // nil when they are off
	admin     *admin.Server
}

// New opens the data folder, loads the state and binds every address, so that
// what is wrong with them fails here. The caller must call Run or Close.
func New(cfg *config.Config, log *slog.Logger) (*Gateway, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{cfg: cfg, node: cfg.NodeName(), log: log, reg: prometheus.NewRegistry(), startedAt: time.Now()}
	g.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, build := range []func() error{g.openStore, g.openBridges, g.openBroker, g.openListeners, g.registerListeners, g.openSys, g.openAdmin} {
		if err := build(); err != nil {
			return nil, errors.Join(err, g.Close())
		}
	}
	return g, nil
}

// storeReserve is disk that the store keeps for itself, so that a full disk does not stop it from freeing what is completed: the two
// segments that it needs for that.
const storeReserve = 32 << 20

func (g *Gateway) openStore() error {
	if err := os.MkdirAll(g.cfg.DataDir, 0o750); err != nil {
		return fmt.Errorf("create data folder: %w", err)
	}
	store, err := embedded.Open(embedded.Config{
		Dir: filepath.Join(g.cfg.DataDir, "store"), Sync: syncPolicy(g.cfg), SyncEvery: time.Duration(g.cfg.Broker.SyncInterval),
		Reserve: storeReserve,
	}, g.log.With("part", "store"), g.reg)
	if errors.Is(err, embedded.ErrLocked) {
		return fmt.Errorf("data folder %s is in use by another gateway: %w", g.cfg.DataDir, err)
	}
	if err != nil {
		return err
	}
	g.store = store
	return nil
}

// syncPolicy says what an acknowledgement waits for.
func syncPolicy(cfg *config.Config) seglog.Sync {
	switch cfg.Broker.Durability {
	case config.DurabilityInterval:
		return seglog.SyncInterval
	case config.DurabilityMemory:
		return seglog.SyncNever
	}
	return seglog.SyncAlways
}

func (g *Gateway) openBridges() error {
	for i := range g.cfg.Bridges {
		p, err := openBridge(&g.cfg.Bridges[i], g.cfg, g.node, g.log, g.reg)
		if err != nil {
			return err
		}
		g.bridges = append(g.bridges, p)
	}
	return nil
}

func (g *Gateway) openBroker() (err error) {
	s, r := &g.cfg.Broker.Session, &g.cfg.Broker.Retained
	cfg := broker.Config{
		Authenticate:  auth.Verified{Else: auth.Anonymous(g.cfg.Auth.Anonymous)},
		ShareStrategy: broker.ShareStrategy(g.cfg.Broker.SharedStrategy),
		Session: broker.SessionConfig{
			MaxExpiry: time.Duration(s.MaxExpiry), MaxKept: s.MaxKept, QueueBytes: int64(s.QueueBytes), WhenFull: broker.FullPolicy(s.WhenFull),
			Inflight: s.Inflight, MemoryBytes: int(s.MemoryBytes),
		},
		Retained: broker.RetainedConfig{
			MaxCount: r.MaxCount, MaxBytes: int64(r.MaxBytes), MaxPayload: int(r.MaxPayload),
			DefaultExpiry: time.Duration(r.DefaultExpiry), MaxExpiry: time.Duration(r.MaxExpiry),
		},
		Delayed: delayedConfig(&g.cfg.Broker.Delayed),
	}
	for i := range g.cfg.Broker.AutoSubscribe {
		cfg.AutoSubscribe = append(cfg.AutoSubscribe, g.cfg.Broker.AutoSubscribe[i].Subscription())
	}
	for i := range g.cfg.Broker.Rewrite {
		cfg.Rewrite = append(cfg.Rewrite, g.cfg.Broker.Rewrite[i].Rule())
	}
	if g.cfg.Broker.SysInterval > 0 {
		cfg.OnConnection = func(e broker.ConnectionEvent) { g.sys.connection(e) }
		if g.cfg.Broker.SysEvents.Subscriptions {
			cfg.OnSubscription = func(e broker.SubscriptionEvent) { g.sys.subscription(e) }
		}
	}
	for _, p := range g.bridges {
		cfg.Hooks = append(cfg.Hooks, p.stage)
	}
	g.broker, err = broker.New(context.Background(), cfg, g.store, g.log.With("part", "broker"), g.reg)
	if err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	return nil
}

// openSys makes the $SYS topics, so that they are there when the first client
// comes. It counts what the listeners count.
func (g *Gateway) openSys() error {
	if g.cfg.Broker.SysInterval > 0 {
		g.sys = newSysTopics(g)
		g.sys.look(time.Now())
	}
	return nil
}

func (g *Gateway) openAdmin() (err error) {
	if g.alarms, err = admin.NewAlarms(g.log, g.reg); err != nil {
		return err
	}
	if g.sys != nil {
		g.alarms.OnChange(g.sys.alarm)
	}
	g.watch = newWatch(g)
	cfg := admin.Config{Bind: string(g.cfg.Admin.Bind), TokenFile: g.cfg.TokenPath(), Hosts: g.cfg.Admin.Hosts}
	g.admin, err = admin.New(cfg, g.adminDeps(), g.log.With("part", "admin"), g.reg)
	return err
}

// Addrs returns where the gateway listens, by the name of the listener; the
// operator interface is "admin".
func (g *Gateway) Addrs() map[string]net.Addr {
	all := map[string]net.Addr{"admin": g.admin.Addr()}
	for _, l := range g.listeners {
		all[l.name] = l.server.Addr()
	}
	return all
}

// Run serves until ctx ends or a part fails, then stops in order: no new
// clients, sessions detached, what the bridges have sent confirmed, disks
// synced and closed. It returns nil after an ordered stop. Call it once.
func (g *Gateway) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	inner, outer := newStage(failed), newStage(failed)
	for _, p := range g.bridges {
		inner.run("bridge "+p.cfg.Name, p.forwarder.Run)
	}
	inner.run("admin interface", g.admin.Run)
	inner.run("alarms", g.watch.run)
	if g.sys != nil {
		inner.run("$SYS topics", g.sys.run)
	}
	for _, l := range g.listeners {
		outer.run("listener "+l.name, l.server.Run)
	}
	g.logStart()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	g.log.Info("stopping")
	outer.stop()
	err = errors.Join(err, g.broker.Close())
	inner.stop()
	err = errors.Join(err, g.Close())
	g.log.Info("stopped")
	return err
}

func (g *Gateway) logStart() {
	for name, addr := range g.Addrs() {
		g.log.Info("listening", "listener", name, "addr", addr.String())
	}
	g.log.Info("gateway is ready", "version", Version, "node", g.node, "data", g.cfg.DataDir, "after", time.Since(g.startedAt).Round(time.Millisecond))
}

// Close releases everything. Safe to call twice, and on a gateway that New
// could not complete. It must not be called while Run runs.
func (g *Gateway) Close() error {
	var errs []error
	for _, l := range g.listeners {
		errs = append(errs, l.server.Close())
	}
	for _, c := range g.certs {
		c.source.Close()
	}
	if g.admin != nil {
		errs = append(errs, g.admin.Close())
	}
	if g.broker != nil {
		errs = append(errs, g.broker.Close())
	}
	for _, p := range g.bridges {
		errs = append(errs, p.close())
	}
	if g.store != nil {
		errs = append(errs, g.store.Close())
	}
	return errors.Join(errs...)
}
