// Calls each example through the client that openapi-generator makes, and prints what it gets as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tinysvc/client"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func size(file *os.File) int64 {
	return must(file.Stat()).Size()
}

func open(path string) *os.File {
	return must(os.Open(path))
}

// main takes the address of the service, and the path of a PNG image.
func main() {
	ctx := context.Background()
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: os.Args[1]}}
	api := client.NewAPIClient(configuration)
	image := os.Args[2]
	found := map[string]any{}

	greeting, _, err := api.HelloAPI.Hello(ctx, "Ada").Punctuation("?").Execute()
	found["hello"] = must(greeting, err)["message"]
	primes, _, err := api.HelloAPI.HelloPrimes(ctx, 12).Execute()
	found["primes"] = must(primes, err)

	kept, _, err := api.BlobsAPI.Keep(ctx).Body(open(image)).Execute()
	blob, _, err2 := api.BlobsAPI.Fetch(ctx, must(kept, err).Digest).Execute()
	found["blobs"] = size(must(blob, err2)) == kept.Size

	page, _, err := api.ChatAPI.ChatPage(ctx).Room("tea").Execute()
	found["chat"] = strings.Contains(string(must(io.ReadAll(must(page, err)))), "tea")

	names, _, err := api.GalleryAPI.Upload(ctx).Photos([]*os.File{open(image)}).Execute()
	small, _, err2 := api.GalleryAPI.GalleryThumbnail(ctx, must(names, err)[0]).Execute()
	found["gallery"] = size(must(small, err2)) > 50

	thumbnail, _, err := api.ImagesAPI.ImagesThumbnail(ctx).Size(8).Body(open(image)).Execute()
	found["images"] = size(must(thumbnail, err)) > 50

	events, _, err := api.LiveAPI.LivePrimes(ctx).Below(1000).Execute()
	found["live"] = strings.Contains(must(events, err), "event: result")

	token, _, err := api.MembersAPI.SignIn(ctx).Credentials(*client.NewCredentials("ada", "lovelace")).Execute()
	signedIn := context.WithValue(ctx, client.ContextAccessToken, must(token, err).Token)
	member, _, err := api.MembersAPI.Me(signedIn).Execute()
	found["members"] = must(member, err).Name

	created, _, err := api.NotesAPI.Create(ctx).Draft(*client.NewDraft("a title")).Execute()
	note, _, err2 := api.NotesAPI.Read(ctx, must(created, err).Id).Execute()
	found["notes"] = must(note, err2).Title
	_, err = api.NotesAPI.Delete(ctx, note.Id).Execute()
	if err != nil {
		panic(err)
	}
	_, response, err := api.NotesAPI.Read(ctx, note.Id).Execute()
	problem := client.Problem{}
	if decoded := json.Unmarshal(err.(*client.GenericOpenAPIError).Body(), &problem); decoded != nil {
		panic(decoded)
	}
	found["error"] = fmt.Sprintf("%d %s", response.StatusCode, problem.GetDetail())

	basket := client.NewBasket(map[string]int64{"pen": 1})
	receipt, _, err := api.OrdersAPI.Order(ctx).Basket(*basket).Execute()
	picked := must(receipt, err).Picked[0]
	found["office"] = []any{picked.Item, picked.Count}

	file := must(os.CreateTemp("", "text"))
	defer os.Remove(file.Name())
	must(file.WriteString("The cat sleeps. The dog runs."))
	must(file.Seek(0, io.SeekStart))
	facts, _, err := api.TextAPI.Facts(ctx).Body(file).Execute()
	found["text"] = must(facts, err).Words

	waited, _, err := api.UsersAPI.WaitIo(ctx).Execute()
	found["users"] = len(must(waited, err)) > 0

	query := client.NewQuery([]float64{1, 0, 0, 0, 0, 0, 0, 0})
	nearest, _, err := api.VectorsAPI.Nearest(ctx).Query(*query).Execute()
	found["vectors"] = must(nearest, err).Distance < 2

	fmt.Println(string(must(json.Marshal(found))))
}
