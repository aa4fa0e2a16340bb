// Calls each example through the client that openapi-generator makes, and prints what it gets as JSON.
import { readFileSync } from "node:fs";
import * as client from "./client/index.js";

// The arguments: the address of the service, and the path of a PNG image.
const [url, image] = process.argv.slice(2);
const configuration = new client.Configuration({ basePath: url });
const png = new Blob([readFileSync(image)]);
const found: Record<string, unknown> = {};

async function main(): Promise<void> {
  const hello = new client.HelloApi(configuration);
  found.hello = (await hello.hello({ name: "Ada", punctuation: "?" })).message;
  found.primes = await hello.helloPrimes({ below: 12 });

  const blobs = new client.BlobsApi(configuration);
  const kept: client.Kept = await blobs.keep({ body: png });
  found.blobs = (await blobs.fetch({ digest: kept.digest })).size === kept.size;

  const page = await new client.ChatApi(configuration).chatPage({ room: "tea" });
  found.chat = (await page.text()).includes("tea");

  const gallery = new client.GalleryApi(configuration);
  const [name] = await gallery.upload({ photos: [png] });
  found.gallery = (await gallery.galleryThumbnail({ name })).size > 50;

  const images = new client.ImagesApi(configuration);
  found.images = (await images.imagesThumbnail({ size: 8, body: png })).size > 50;

  const events: string = await new client.LiveApi(configuration).livePrimes({ below: 1000 });
  found.live = events.includes("event: result");

  const credentials: client.Credentials = { name: "ada", password: "lovelace" };
  const { token } = await new client.MembersApi(configuration).signIn({ credentials });
  const signedIn = new client.Configuration({ basePath: url, accessToken: token });
  found.members = (await new client.MembersApi(signedIn).me()).name;

  const notes = new client.NotesApi(configuration);
  const created: client.Note = await notes.create({ draft: { title: "a title" } });
  found.notes = (await notes.read({ noteId: created.id })).title;
  await notes._delete({ noteId: created.id });
  try {
    await notes.read({ noteId: created.id });
  } catch (error) {
    const { response } = error as client.ResponseError;
    const problem = client.ProblemFromJSON(await response.json());
    found.error = `${response.status} ${problem.detail}`;
  }

  const basket: client.Basket = { items: { pen: 1 } };
  const { picked } = await new client.OrdersApi(configuration).order({ basket });
  found.office = [picked[0].item, picked[0].count];

  const text = new Blob(["The cat sleeps. The dog runs."]);
  found.text = (await new client.TextApi(configuration).facts({ body: text })).words;

  found.users = (await new client.UsersApi(configuration).waitIo()).length > 0;

  const query: client.Query = { values: [1, 0, 0, 0, 0, 0, 0, 0] };
  found.vectors = (await new client.VectorsApi(configuration).nearest({ query })).distance < 2;

  console.log(JSON.stringify(found));
}

main();
