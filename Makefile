# Maskmill: the commands. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
BIN := .venv/bin
SHARD ?= jobs/sample/scenes.tar
OUT ?= $(if $(findstring *,$(shard))$(findstring $(comma),$(shard))$(filter . .. /,$(shard)),\
  $(error name the output: OUT=...),out/$(basename $(notdir $(patsubst %/,%,$(shard)))))
ARGS ?=
FILES ?= 3
comma := ,
# As it was given: a dollar in it is no reference to a variable. Only what stands in this file is expanded.
given = $(if $(filter file,$(origin $(1))),$($(1)),$(value $(1)))
shard = $(call given,SHARD)
# Not into the environment of the commands, for which make would expand them after all.
unexport SHARD OUT ADDRESS N A B IMAGE MODEL TO FORM
# A value for Hydra inside a shell word: quotes, backslashes and dollars in the value survive both.
quoted = '$(1)="$(subst ','\'',$(subst $${,\$${,$(subst ",\",$(call given,$(2)))))"'

.PHONY: help setup generate submit look report compare explain export weights verify test browser chaos lint fmt train evaluate bench gpu-check gpu-throughput lock audit-dependencies clean

help:  ## list the targets
	@grep -hE '^[a-z_-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.run-ready: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/.dev-ready: .venv/.run-ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
# sam2 comes as source, and would fetch a torch of its own to be built; it and timm would fetch torchvision to be used, for
# which the tests have stand-ins.
	SAM2_BUILD_CUDA=0 $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation sam2==1.1.0
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps timm==1.0.31
	@touch $@

setup: .venv/.dev-ready  ## make the venv with all that tests and lint need

generate: .venv/.run-ready  ## make masks for SHARD=folder|s3://...|.tar|list in OUT=..., with settings as ARGS='recipe=fast ...'
	$(BIN)/python -m jobs.generate $(call quoted,source,SHARD) $(call quoted,out,OUT) $(ARGS)

submit: .venv/.run-ready  ## the same on a Ray cluster: SHARD=s3://... OUT=s3://... ADDRESS=http://HEAD:8265
	$(BIN)/python -m jobs.submit $(if $(value ADDRESS),$(call quoted,submit.address,ADDRESS)) \
	  $(call quoted,source,SHARD) $(call quoted,out,OUT) $(ARGS)

look: .venv/.run-ready  ## write a page with N=12 images of the output at OUT=... and their masks, and open it where there is a desktop
	$(BIN)/python -m jobs.look $(call quoted,out,OUT) $(if $(value N),'n=$(subst ','\'',$(call given,N))') $(ARGS)

report: .venv/.run-ready  ## write a page of numbers, figures and masks of the output at OUT=..., by groups with ARGS='report.groups=countries.csv'
	$(BIN)/python -m jobs.report $(call quoted,out,OUT) $(ARGS)

compare: .venv/.run-ready  ## say what differs between the outputs at A=... and B=... of the same images, and show it on a page
	$(BIN)/python -m jobs.compare $(call quoted,a,A) $(call quoted,b,B) $(if $(value N),'n=$(subst ','\'',$(call given,N))') $(ARGS)

explain: .venv/.run-ready  ## show every step from points to masks of IMAGE=..., with settings as ARGS='recipe=sam ...'
	$(BIN)/python -m jobs.explain $(call quoted,image,IMAGE) $(ARGS)

export: .venv/.run-ready  ## write the output at OUT=... as FORM=sa1b|coco|... to TO=..., with settings as ARGS='export.images=true'
	$(BIN)/python -m jobs.export $(call quoted,out,OUT) $(call quoted,to,TO) $(call quoted,form,FORM) $(ARGS)

weights: .venv/.run-ready  ## fetch the weights of MODEL=vit_b|sam2.1_tiny|...|hf://owner/name/file, and put them at TO=folder|s3://... if that is given
	$(BIN)/python -m jobs.weights $(call quoted,name,MODEL) $(if $(value TO),$(call quoted,to,TO)) $(ARGS)

verify: .venv/.run-ready  ## recount the output at OUT=... from its parts alone
	$(BIN)/python -m jobs.verify $(call quoted,out,OUT) $(ARGS)

# Python keeps what it has compiled, whatever the shell says: the suite starts hundreds of processes on the same sources.
test: .venv/.dev-ready  ## run the test suite, FILES=3 files at a time
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(FILES) --dist loadfile --no-loadscope-reorder

browser:  ## install Debian's Chromium, with which `make test` looks at the pages; without it those tests are skipped
	command -v chromium >/dev/null || { $(if $(filter 0,$(shell id -u)),,sudo) apt-get update -qq && \
	  $(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y -qq chromium; }

chaos: .venv/.dev-ready  ## kill workers, nodes and drivers for a quarter of an hour, and compare with an undisturbed run
	$(BIN)/python -m tests.chaos $(ARGS)

lint: .venv/.dev-ready  ## check the code with ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

fmt: .venv/.dev-ready  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train: .venv/.run-ready  ## train the bundled model, or another small one (hours on a CPU), with ARGS='train.steps=...'
	$(BIN)/python -m jobs.train $(ARGS)

evaluate: .venv/.run-ready  ## measure the bundled model, or another with ARGS='model.checkpoint=...', on held-out scenes
	$(BIN)/python -m jobs.evaluate $(ARGS)

bench: .venv/.dev-ready  ## compare the generator with its peers, with ARGS='--models tiny ...' (--help lists all)
	$(BIN)/python -m benchmarks.compare $(ARGS)

gpu-check: .venv/.run-ready  ## is this machine's GPU right, how fast is it, where does the time go; ARGS='--model vit_h'
	$(BIN)/python -m benchmarks.gpu_check $(ARGS)

gpu-throughput: .venv/.run-ready  ## images a second of a worker on this machine's GPU, and what holds it up; ARGS as above
	$(BIN)/python -m benchmarks.throughput $(ARGS)

.venv/lock/bin/uv:
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/pip install --quiet --disable-pip-version-check uv

lock: .venv/lock/bin/uv  ## write requirements.lock anew: the versions of constraints.txt with the hashes of their files
	.venv/lock/bin/uv pip compile pyproject.toml --constraint constraints.txt --generate-hashes --universal \
	  --python-version 3.11 --no-annotate --custom-compile-command 'make lock' --quiet --output-file requirements.lock

.venv/audit/bin/pip-audit:
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet --disable-pip-version-check pip-audit

audit-dependencies: .venv/audit/bin/pip-audit  ## ask PyPI whether a version of constraints.txt has a known vulnerability
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

clean:  ## delete the venv and caches
	rm -rf .venv .pytest_cache .ruff_cache *.egg-info
