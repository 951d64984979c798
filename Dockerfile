# syntax=docker/dockerfile:1
# ddtb as one static program in an image without a shell. It listens on port 8000 and runs as an ordinary user.
# Build: docker build --build-arg VERSION="$(git describe --tags --always)" -t ddtb .

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=unknown
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /ddtb ./cmd/ddtb

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="ddtb" \
      org.opencontainers.image.description="Run PostgreSQL out of connections, see why, and fix it" \
      org.opencontainers.image.licenses="MIT"
COPY LICENSE /
COPY --from=build /ddtb /
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/ddtb", "healthcheck", "127.0.0.1:8000"]
ENTRYPOINT ["/ddtb"]
CMD ["runserver", "0.0.0.0:8000"]
