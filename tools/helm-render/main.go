// Renders a chart with Helm's own engine, as `helm template` does and with its words, for machines without Helm: the whole of
// Helm takes several times as long to build.
//
//	helm-render template NAME CHART [--kube-version V] [--namespace NS] [--set KEY=VALUE]…
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/strvals"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "version" {
		fmt.Println("helm-render")
		return
	}
	if err := render(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "helm-render:", err)
		os.Exit(1)
	}
}

func render(args []string) error {
	if len(args) < 3 || args[0] != "template" {
		return fmt.Errorf("want: template NAME CHART [--kube-version V] [--namespace NS] [--set KEY=VALUE]…")
	}
	release := chartutil.ReleaseOptions{Name: args[1], Namespace: "default", Revision: 1, IsInstall: true}
	capabilities := chartutil.DefaultCapabilities.Copy()
	values := map[string]any{}
	for rest := args[3:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) < 2 {
			return fmt.Errorf("%s wants a value", rest[0])
		}
		var err error
		switch rest[0] {
		case "--set":
			err = strvals.ParseInto(rest[1], values)
		case "--namespace":
			release.Namespace = rest[1]
		case "--kube-version":
			var version *chartutil.KubeVersion
			if version, err = chartutil.ParseKubeVersion(rest[1]); err == nil {
				capabilities.KubeVersion = *version
			}
		default:
			err = fmt.Errorf("it is not known here")
		}
		if err != nil {
			return fmt.Errorf("cannot take %s %s: %w", rest[0], rest[1], err)
		}
	}
	return write(args[2], values, release, capabilities)
}

func write(path string, values map[string]any, release chartutil.ReleaseOptions, capabilities *chartutil.Capabilities) error {
	chart, err := loader.Load(path)
	if err != nil {
		return err
	}
	if want := chart.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, capabilities.KubeVersion.String()) {
		return fmt.Errorf("the chart wants Kubernetes %s, not %s", want, capabilities.KubeVersion.String())
	}
	// Checks the values against the chart's schema, too.
	all, err := chartutil.ToRenderValues(chart, values, release, capabilities)
	if err != nil {
		return err
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Printf("---\n# Source: %s\n%s\n", name, files[name])
	}
	return nil
}
