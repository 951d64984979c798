package main

import (
	"os"
	"strconv"
	"testing"
	"time"

	"go.yaml.in/yaml/v3" // decodes into structures and refuses a field that they don't have

	"ddtb/config"
	"ddtb/db"
)

const manifests = "../../config/kubernetes/"

// The part of Kubernetes' API that the manifests use. A field that is not here is refused, as kubectl refuses one that it
// does not know.
type (
	object struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   metadata
	}
	metadata struct {
		Name                string
		Labels, Annotations map[string]string
	}
	selector struct {
		MatchLabels map[string]string `yaml:"matchLabels"`
	}
	deployment struct {
		object `yaml:",inline"`
		Spec   struct {
			Replicas             int
			MinReadySeconds      int `yaml:"minReadySeconds"`
			RevisionHistoryLimit int `yaml:"revisionHistoryLimit"`
			Selector             selector
			Strategy             struct {
				Type          string
				RollingUpdate struct {
					MaxSurge       int `yaml:"maxSurge"`
					MaxUnavailable int `yaml:"maxUnavailable"`
				} `yaml:"rollingUpdate"`
			}
			Template podTemplate
		}
	}
	job struct {
		object `yaml:",inline"`
		Spec   struct {
			BackoffLimit          int `yaml:"backoffLimit"`
			ActiveDeadlineSeconds int `yaml:"activeDeadlineSeconds"`
			Template              podTemplate
		}
	}
	service struct {
		object `yaml:",inline"`
		Spec   struct {
			Selector map[string]string
			Ports    []struct {
				Name       string
				Port       int
				TargetPort string `yaml:"targetPort"`
			}
		}
	}
	disruptionBudget struct {
		object `yaml:",inline"`
		Spec   struct {
			MaxUnavailable             int    `yaml:"maxUnavailable"`
			UnhealthyPodEvictionPolicy string `yaml:"unhealthyPodEvictionPolicy"`
			Selector                   selector
		}
	}
	podTemplate struct {
		Metadata metadata
		Spec     struct {
			TerminationGracePeriodSeconds int    `yaml:"terminationGracePeriodSeconds"`
			RestartPolicy                 string `yaml:"restartPolicy"`
			AutomountServiceAccountToken  bool   `yaml:"automountServiceAccountToken"`
			SecurityContext               struct {
				RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
				RunAsUser      int                   `yaml:"runAsUser"`
				SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
			} `yaml:"securityContext"`
			Containers []container
			Volumes    []struct {
				Name     string
				EmptyDir struct {
					SizeLimit string `yaml:"sizeLimit"`
				} `yaml:"emptyDir"`
			}
		}
	}
	container struct {
		Name, Image string
		Args        []string
		Ports       []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		Env []struct {
			Name, Value string
			ValueFrom   struct {
				SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
			} `yaml:"valueFrom"`
		}
		Lifecycle struct {
			PreStop struct {
				Sleep struct{ Seconds int }
			} `yaml:"preStop"`
		}
		ReadinessProbe  probe `yaml:"readinessProbe"`
		LivenessProbe   probe `yaml:"livenessProbe"`
		Resources       struct{ Requests, Limits map[string]string }
		SecurityContext struct {
			AllowPrivilegeEscalation bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop []string }
		} `yaml:"securityContext"`
		VolumeMounts []struct {
			Name      string
			MountPath string `yaml:"mountPath"`
		} `yaml:"volumeMounts"`
	}
	probe struct {
		HTTPGet          struct{ Path, Port string } `yaml:"httpGet"`
		PeriodSeconds    int                         `yaml:"periodSeconds"`
		TimeoutSeconds   int                         `yaml:"timeoutSeconds"`
		FailureThreshold int                         `yaml:"failureThreshold"`
	}
)

// manifest decodes the one object of a file.
func manifest[T any](t *testing.T, file string) (o T) {
	t.Helper()
	f, err := os.Open(manifests + file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&o); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return o
}

func TestTheManifestsForKubernetesBelongTogether(t *testing.T) {
	d, s := manifest[deployment](t, "deployment.yaml"), manifest[service](t, "service.yaml")
	b, j := manifest[disruptionBudget](t, "disruption-budget.yaml"), manifest[job](t, "migrate.yaml")
	files, err := os.ReadDir(manifests)
	if err != nil || len(files) != 4 {
		t.Errorf("%d files, of which this test knows 4; %v", len(files), err)
	}
	for _, o := range []struct{ is, want object }{
		{d.object, object{APIVersion: "apps/v1", Kind: "Deployment"}},
		{s.object, object{APIVersion: "v1", Kind: "Service"}},
		{b.object, object{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}},
		{j.object, object{APIVersion: "batch/v1", Kind: "Job"}},
	} {
		if o.is.APIVersion != o.want.APIVersion || o.is.Kind != o.want.Kind || o.is.Metadata.Name == "" {
			t.Errorf("%+v", o.is)
		}
	}
	pod := d.Spec.Template.Metadata.Labels["app"]
	for what, label := range map[string]string{
		"the Deployment": d.Spec.Selector.MatchLabels["app"], "the Service": s.Spec.Selector["app"], "the budget": b.Spec.Selector.MatchLabels["app"],
	} {
		if label != pod || label == "" {
			t.Errorf("%s selects app %q, and the pods are %q", what, label, pod)
		}
	}
	c, m := d.Spec.Template.Spec.Containers[0], j.Spec.Template.Spec.Containers[0]
	if c.Image != m.Image || c.Env[0] != m.Env[0] {
		t.Errorf("the migration is of %s with %v, and the server of %s with %v", m.Image, m.Env[0], c.Image, c.Env[0])
	}
	if port := c.Ports[0]; port.Name != s.Spec.Ports[0].TargetPort || c.ReadinessProbe.HTTPGet.Port != port.Name || c.LivenessProbe.HTTPGet.Port != port.Name {
		t.Errorf("the port is called %q", port.Name)
	}
	if ready, alive := c.ReadinessProbe.HTTPGet.Path, c.LivenessProbe.HTTPGet.Path; ready != "/readyz" || alive != "/healthz" {
		t.Errorf("the probes ask %s and %s", ready, alive)
	}
}

func TestTheDeploymentsEnvironmentIsAConfiguration(t *testing.T) {
	d := manifest[deployment](t, "deployment.yaml")
	c := d.Spec.Template.Spec.Containers[0]
	environ := []string{"HOME=/nonexistent"}
	for _, v := range c.Env {
		if v.ValueFrom.SecretKeyRef.Key == "database-url" {
			v.Value = "postgres://app:secret@db.example.org/app?sslmode=verify-full"
		}
		environ = append(environ, v.Name+"="+v.Value)
	}
	cfg, err := config.Load(config.Options{
		Environ: environ, Flags: []config.Flag{{Name: "ADDR", Key: "server.addr", Value: c.Args[1]}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("%q", cfg.Warnings)
	}
	if cfg.Server.Replicas != d.Spec.Replicas {
		t.Errorf("%d replicas to the program, %d to Kubernetes", cfg.Server.Replicas, d.Spec.Replicas)
	}
	if d := cfg.Databases["default"]; d.Pool.MaxSize != db.Auto || d.Budget == 0 {
		t.Errorf("pool.max_size is %d, and the budget %d", d.Pool.MaxSize, d.Budget)
	}
	if want := "0.0.0.0:" + strconv.Itoa(c.Ports[0].ContainerPort); cfg.Server.Addr != want {
		t.Errorf("it listens on %s, not on %s", cfg.Server.Addr, want)
	}
	grace := time.Duration(d.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
	if stop := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds)*time.Second + cfg.Server.ShutdownTimeout; stop >= grace {
		t.Errorf("the stop takes up to %v, and after %v it is killed", stop, grace)
	}
}
