// Calls rpc_app.py with grpc-go, from the .proto file that --proto prints. Prints one JSON document.
//
//	rpc_client ADDRESS                            without TLS
//	rpc_client ADDRESS CA [CERTIFICATE KEY]       with TLS; only "hello"
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	made "client/made"
)

type found map[string]interface{}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func number(value int64) *int64 { return &value }

// The code, the message and the details of a failed call.
func failure(err error, trailer metadata.MD) found {
	is := status.Convert(err)
	result := found{"code": is.Code().String(), "message": is.Message(), "pushback": trailer.Get("grpc-retry-pushback-ms")}
	for _, detail := range is.Details() {
		switch each := detail.(type) {
		case *errdetails.ErrorInfo:
			result["info"] = each.Metadata["status"]
		case *errdetails.RetryInfo:
			result["retry"] = each.RetryDelay.Seconds
		case *errdetails.BadRequest:
			result["fault"] = each.FieldViolations[0].Field + ": " + each.FieldViolations[0].Description
		default:
			result["unknown"] = fmt.Sprint(each)
		}
	}
	return result
}

func connect(arguments []string) *grpc.ClientConn {
	option := grpc.WithInsecure()
	if len(arguments) > 1 {
		config := &tls.Config{RootCAs: x509.NewCertPool()}
		authorities, err := os.ReadFile(arguments[1])
		fail(err)
		config.RootCAs.AppendCertsFromPEM(authorities)
		if len(arguments) > 2 {
			certificate, err := tls.LoadX509KeyPair(arguments[2], arguments[3])
			fail(err)
			config.Certificates = []tls.Certificate{certificate}
		}
		option = grpc.WithTransportCredentials(credentials.NewTLS(config))
	}
	connection, err := grpc.Dial(arguments[0], option)
	fail(err)
	return connection
}

func unary(ctx context.Context, client made.RpcAppClient, result found) {
	hello, err := client.Hello(ctx, &made.HelloRequest{Name: "Ada", Times: number(2)})
	fail(err)
	result["hello"] = hello.Value
	item := &made.Item{Name: "a", Count: number(4)}
	sent := metadata.AppendToOutgoingContext(ctx, "x-user", "b")
	reply, err := client.Item(sent, &made.ItemRequest{Item: item})
	fail(err)
	result["item"] = []interface{}{reply.Name, reply.GetCount()}
	double, err := client.Double(ctx, &made.DoubleRequest{Item: item})
	fail(err)
	result["double"] = double.GetCount()
	data := make([]byte, 100000)
	big, err := client.Big(ctx, &made.BigRequest{Data: data}, grpc.UseCompressor("gzip"))
	fail(err)
	result["gzip"] = len(big.Value)
	var trailer metadata.MD
	token := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer right")
	whoami, err := client.Whoami(token, &made.WhoamiRequest{})
	fail(err)
	result["token"] = whoami.Value
	_, err = client.Whoami(ctx, &made.WhoamiRequest{}, grpc.Trailer(&trailer))
	result["no token"] = failure(err, trailer)
	_, err = client.Refused(ctx, &made.RefusedRequest{Status: 503}, grpc.Trailer(&trailer))
	result["refused"] = failure(err, trailer)
	_, err = client.Item(ctx, &made.ItemRequest{}, grpc.Trailer(&trailer))
	result["wrong"] = failure(err, trailer)
	late, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err = client.Stuck(late, &made.StuckRequest{Name: "go late"})
	result["late"] = status.Code(err).String()
	gone, leave := context.WithCancel(ctx)
	time.AfterFunc(200*time.Millisecond, leave)
	_, err = client.Sleeps(gone, &made.SleepsRequest{Seconds: 60})
	result["cancelled"] = status.Code(err).String()
	pid, err := client.Double(ctx, &made.DoubleRequest{Item: item}) // its worker was killed, or it waits
	fail(err)
	result["afterwards"] = pid.GetCount()
}

func streams(ctx context.Context, client made.RpcAppClient, result found) {
	numbers, err := client.Numbers(ctx, &made.NumbersRequest{Count: 3})
	fail(err)
	values := []int64{}
	for {
		each, err := numbers.Recv()
		if err == io.EOF {
			break
		}
		fail(err)
		values = append(values, each.Value)
	}
	result["numbers"] = values
	total, err := client.Total(metadata.AppendToOutgoingContext(ctx, "x-start", "10"))
	fail(err)
	for count := int64(1); count < 3; count++ {
		fail(total.Send(&made.TotalRequest{Items: &made.Item{Count: number(count)}}))
	}
	sum, err := total.CloseAndRecv()
	fail(err)
	result["total"] = sum.Value
	doubles, err := client.Doubles(ctx)
	fail(err)
	values = []int64{}
	for value := int64(1); value < 4; value++ { // one after the other: each reply comes before the next request
		fail(doubles.Send(&made.DoublesRequest{Numbers: value}))
		each, err := doubles.Recv()
		fail(err)
		values = append(values, each.Value)
	}
	fail(doubles.CloseSend())
	_, err = doubles.Recv()
	result["doubles"], result["doubles end"] = values, err == io.EOF
	gives, err := client.GivesUp(ctx, &made.GivesUpRequest{Status: 410})
	fail(err)
	first, err := gives.Recv()
	fail(err)
	_, err = gives.Recv()
	result["gives up"] = []interface{}{first.Value, failure(err, gives.Trailer())}
	gone, leave := context.WithCancel(ctx)
	endless, err := client.Endless(gone, &made.EndlessRequest{})
	fail(err)
	_, err = endless.Recv()
	fail(err)
	leave()
	for err == nil {
		_, err = endless.Recv()
	}
	result["endless"] = status.Code(err).String()
}

func services(ctx context.Context, connection *grpc.ClientConn, result found) {
	checked, err := health.NewHealthClient(connection).Check(ctx, &health.HealthCheckRequest{Service: "rpc_app.RpcApp"})
	fail(err)
	result["health"] = checked.Status.String()
	stream, err := reflection.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	fail(err)
	fail(stream.Send(&reflection.ServerReflectionRequest{
		MessageRequest: &reflection.ServerReflectionRequest_ListServices{ListServices: "*"},
	}))
	listed, err := stream.Recv()
	fail(err)
	names := []string{}
	for _, each := range listed.GetListServicesResponse().Service {
		names = append(names, each.Name)
	}
	sort.Strings(names)
	result["services"] = strings.Join(names, " ")
	fail(stream.CloseSend())
}

func main() {
	connection := connect(os.Args[1:])
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, result := made.NewRpcAppClient(connection), found{}
	if len(os.Args) > 2 {
		reply, err := client.Hello(ctx, &made.HelloRequest{Name: "Ada"})
		if err != nil {
			result["hello"] = status.Code(err).String()
		} else {
			result["hello"] = reply.Value
		}
	} else {
		unary(ctx, client, result)
		streams(ctx, client, result)
		services(ctx, connection, result)
	}
	fail(json.NewEncoder(os.Stdout).Encode(result))
	connection.Close()
}
