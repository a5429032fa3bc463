# ruff: noqa: E501 (templates are read one to a line)
"""Small talk: what a guest may say and how a character answers, in the template language of `grammar`.

Slots about the scene: <char>, <user>, <role> (what the character is), <here> (where they are). The rest is drawn once for
an exchange, so that an answer can take up what was said.
"""

Intent = tuple[tuple[str, ...], tuple[str, ...]]

INTENTS: dict[str, Intent] = {
    "greet": (
        ("{Hello|Hi|Hey|Good day|Good evening|Good morning|Greetings}{!|.|, <char>!|, <char>.| there!}",
         "{Hello|Hi|Hey}! {How are you?|How are you today?|How do you do?|How is it going?}",
         "I {push open the door|step inside|come in} and {look around|shake off the rain}. Hello?", "Is anybody {here|there|home}?"),
        ("{Hello|Welcome|Good day} {to you, |}{traveller|friend|<user>}! {Come in|Sit down|Make yourself at home}. "
         "{What can I do for you|What brings you here|How may I help you}?",
         "{Hello|Welcome}, {<user>|friend|traveller}. I am {well|fine|quite well}, thank you{.| for asking.} {And you?|How are you?}",
         "{Good to see you|There you are|Ah, a visitor}! I am <char>. {Welcome to <here>.|You are at <here>.} {What do you need?|Are you tired?}")),
    "how_are_you": (
        ("How are you{?| today?| feeling?|, <char>?}", "{Are you well|Is all well|Everything all right}?", "How was your {day|night|morning|week}?"),
        ("I am {well|fine|a little tired, but well|in good spirits}, thank you. {And you?|How are you, <user>?|What about you?}",
         "{Well enough|Quite well|Better now that you are here}. It has been a {long|quiet|busy|good} day. {And yours?|How do you feel?}",
         "{Thank you, I cannot complain|I am glad you ask}. The {work|day|weather} is {hard|kind|fine}, but my {heart|mood} is {light|good}.")),
    "fine": (
        ("I am {fine|well|good|very well}, {thank you|thanks}.", "I {feel|am} {better|much better} {now|today}{, thank you.|.}", "{All is well|Not bad}, {and you?|thanks.}"),
        ("{I am glad to hear that|That is good to hear|That makes me happy}{.|, <user>.} {What shall we do now?|Is there anything you need?|Stay as long as you like.}",
         "{Good|Wonderful|Very good}. {Then sit down and tell me about your journey.|Then let us talk a little.|You look well, too.}")),
    "tired": (
        ("I am {so |very |a little |}{tired|hungry|cold|thirsty|hurt|lost|afraid|sad|lonely}.", "I {feel|am feeling} {tired|ill|weak|sad|terrible}{ today|}."),
        ("{Oh no|Poor thing|I am sorry to hear that}{.|, <user>.} {Sit by the fire|Lie down for a while|Rest here} {and I will bring you <drink>|and have some <food>|until you feel better}.",
         "{Do not worry|You are safe here|It will pass}. {I will take care of you|I will look after you|Let me help you}. {Do you want some <drink>?|Some <food> will do you good.}")),
    "who": (
        ("{Who are you?|And who are you?|What is your name?|May I ask your name?|Do you have a name?|Tell me your name.}", "I do not know you. Who are you?", "{Can you introduce yourself?|Tell me about yourself.|Tell me who you are.}"),
        ("{My name is <char>|I am <char>|The name is <char>|I am called <char>}{.|, <role>.} {Welcome|Be welcome}{.|, <user>.|, traveller.}",
         "I am <char>, <role>. {And who are you?|What is yours?|I have lived here for many years.|Pleased to meet you.}")),
    "where": (
        ("{Where am I?|Where are we?|What is this place?|What place is this?|Where is this?|Where did I end up?}", "I {wake up|open my eyes}. {Where am I?|What is this place?}", "Tell me about this place."),
        ("{You are at <here>|This is <here>|We are at <here>|You have come to <here>}. {You are safe here.|I look after it.|It is a quiet place.|People come from far away to see it.}",
         "This is <here>, {traveller|my friend|<user>}. {You are welcome here.|Rest here as long as you like.|Did you lose your way?}")),
    "who_where": (
        ("{Hello! |Hi! |}{Where am I, and who are you?|Who are you, and where am I?|Where am I? Who are you?|Who are you? What is this place?}",),
        ("{Hello|Welcome|Do not be afraid}{.|, <user>.} {I am <char>|My name is <char>}{, <role>|}, and {you are at|this is} <here>. {You are safe here.|How do you feel?|What is your name?}",
         "You are at <here>, and I am <char>{.|, <role>.} {Be welcome.|You can rest here.|Are you hurt?}")),
    "what_do": (
        ("What do you do{?| here?| all day?| for a living?}", "What is your {work|job|trade|task}?", "Are you {busy|working} {here|today}?"),
        ("I am <role>. {I look after|I take care of} {the guests|whoever comes here|this place} and {keep the fire burning|listen to their stories|mend what is broken}.",
         "{Me? |}I am <role>{.|, as you can see.} {It is honest work.|There is always something to do.|I would not change it for gold.}")),
    "from": (
        ("I {come|am} from <town>.", "I have {walked|come|travelled} all the way from <town>.", "<town> is my home."),
        ("{From <town>|<town>}? {That is a long way|I have never been there|I hear it is lovely}. {What is it like there?|You must be tired.|What brings you here?}",
         "{Ah|Oh}, <town>! {My <relation> lived there once.|I know a <trade> from <town>.|They say the <food> is good there.}")),
    "called": (
        ("{My name is <person>|I am <person>|Call me <person>|They call me <person>}{.|. And you?|. Nice to meet you.}",),
        ("{Well met|Nice to meet you|Welcome|A pleasure}, <person>. {I am <char>.|My name is <char>.|<person> is a good name.} {What brings you here?|How can I help?|Sit down.}",
         "<person>, {you say|is it}? {Good|Fine}. I am <char>{.|, <role>.} {Make yourself at home, <person>.|I will remember that.}")),
    "thanks": (
        ("{Thank you|Thanks|Many thanks|Thank you so much}{!|.|, <char>.|, that is kind.}", "{That is very kind of you|You are very kind|I am grateful}."),
        ("{You are welcome|It was nothing|No trouble at all|Do not mention it|Any time}{.|, <user>.|, friend.} {Is there anything else?|I am happy to help.|That is what I am here for.}",)),
    "bye": (
        ("{Goodbye|Farewell|Bye|Good night|See you}{!|.|, <char>.|, and thank you.}", "I {must|have to} {go|leave} now.", "It is {late|time}. {I am off.|I am going to bed.}"),
        ("{Farewell|Goodbye|Safe travels|Take care}{.|, <user>.|, friend.} {Come back soon.|The door is always open.|Mind the road, it is dark.|I will think of you.}",
         "{Good night|Sleep well|Until next time}{.|, <user>.} {I will leave a light on.|See you tomorrow.|May the road be kind.}")),
    "food": (
        ("What {can I eat here|is there to eat|do you have to eat|is for supper|is cooking}?", "I am hungry. {What do you have?|Is there any food?}", "{Do you have|Is there} anything to eat?"),
        ("{There is|I have|We have|Today there is} <food>{, | with <drink>, }and {some cheese|fresh bread|a little cake}. {Are you hungry?|Shall I bring you some?|It is still warm.}",
         "{I can offer you|The cook made|How about} <food>? {It is good.|Everyone likes it.|It is my favourite.} {And some <drink>, perhaps?|Sit down, I will bring it.}")),
    "order_food": (
        ("I would like {some |the |}<food>{, please.|.|, if there is any left.}", "{Bring me|Give me|Can I have} {some |}<food>{, please?|?}", "{One|A plate of} <food>, please."),
        ("{One <food>|<food>}, {coming up|at once|of course|certainly}. {Do you want <drink> with it?|Mind the plate, it is hot.|Sit down, please.}",
         "{Good choice|Of course|Gladly}. The <food> is {fresh|warm|very good} today. {Here you are.|It will not take long.|Enjoy it.}")),
    "order_drink": (
        ("{A cup of|A mug of|Some|I would like some} <drink>, please.", "{Can I have|May I have|Do you have} {some |}<drink>?"),
        ("{Here is your <drink>|One <drink>, coming up|<drink>, of course}. {It warms the heart.|Drink slowly.|To your health!}",
         "{Certainly|Yes|Gladly}. {I pour|Let me pour} you {a cup of|some} <drink>. {There you go.|Anything else?}")),
    "room": (
        ("{Do you have|Is there} a {free |}room{?| for the night?| for me?}", "I need a {bed|room|place to sleep}{.| for tonight.}", "Where can I sleep?", "{Can|May} I stay here{?| tonight?}"),
        ("{Yes|Of course|Certainly}, {there is a|I have a|we have a} {small|quiet|warm|clean} room {upstairs|at the back|under the roof}. {The bed is soft.|Shall I show you?|It looks out on the <building>.}",
         "{You can sleep|There is a bed} {upstairs|in the room by the stairs|next to the kitchen}. {Supper is included.|I will bring you a blanket.|You will sleep well there.}")),
    "weather": (
        ("{How is the weather|What is the weather like}{?| outside?| today?}", "{Will it rain|Is it raining|Is it cold outside}?", "What {weather|a storm|a day}!"),
        ("It is <weather> {today|outside|and getting dark}. {Stay inside.|Take a coat.|It will pass.|The <animal> does not mind.}",
         "{Looks <weather> to me|Rather <weather>|<weather> since this morning}, {as always|I fear|as you can see}. {But it is warm in here.|Good weather for <likes>.}")),
    "rumour": (
        ("{Any news|What is new|Any rumours|What do people say}{?| around here?}", "Did anything happen {lately|here}?", "{Have you heard|Tell me} any {gossip|news|rumours}?"),
        ("They say {a <trade>|<other>|the <trade> from <town>} {found|lost|stole|sold} a <thing> <spot>. {Nobody knows why.|I do not believe it.|People talk of nothing else.}",
         "{People whisper|I heard} that there is a <animal> <spot>{, and it talks|, as big as a cart|}. {Strange times.|Make of that what you will.}",
         "{Well|Just this}: <other> {went to|came back from} <town> with a <thing>. {And nobody saw it since.|Nobody asks questions.}")),
    "story": (
        ("{Tell me a story|Tell me a tale|Do you know a story|I would like to hear a story}{.|, <char>.| about <town>.| about a <animal>.}", "Tell me a {long |very long |short |}story{.| about the forest.| about this place.}"),
        ("{Once|Long ago|Many years ago}{, | in <town>, }{there was|there lived} a <trade> who {had|found} a <thing>. One {night|morning} a <animal> {came to the door|took it away|spoke to him}. "
         "{The <trade> followed it|They walked together} {all the way to <town>|for three days and three nights}. {And there|In the end} {they became friends|he opened a small inn|nobody was afraid any more}. {That is all I know.|So it was told to me.|The end.}",
         "{Listen, then|All right, sit down|Very well}. {There was a|My <relation> knew a} <trade> {named|called} <other>, {who was afraid of <fears>|who loved <likes>}. {One winter|One day} <other> {met|saved} a <animal>, and "
         "{from that day on they never parted|it gave back a <thing>|luck came to the house}. {Some say they still walk the road at night.|It is true, every word.}")),
    "joke": (
        ("{Tell me a joke|Do you know a joke|Make me laugh|Say something funny}{.|, <char>.|!}",),
        ("{Why did the <animal> {visit|marry} the <trade>? Because it wanted a <item>!|What does a <trade> say to a <animal>? Mind my <item>!} {That one is old.|I will stop now.|Ha!}",
         "A <trade> and a <animal> walk into an inn. {The <animal> pays.|Says the innkeeper: not again.|The <trade> says: it followed me.} {I told you it was bad.|Ha!}")),
    "directions": (
        ("{How do I get|What is the way|Which way is it} to <town>?", "{Can you show me|Tell me} the way to <town>{.|, please.}", "I {need|want|have} to {go|get} to <town>."),
        ("{To <town>|<town>}? {Follow the river|Take the north road|Go through the wood|Cross the bridge} and {turn left at the mill|keep to the right|walk until you see a tower}. {It is not far.|It takes a day.|Be careful at night.}",
         "The road to <town> {starts behind the <building>|leads past the <building>|is easy to find}. {Ask the <trade> if you get lost.|You will be there by evening.}")),
    "where_is": (
        ("Where {is|can I find} the <building>?", "Is there a <building> {here|nearby}?"),
        ("The <building>? {It is|You will find it} {behind the church|down the street|across the bridge|near the market|at the end of the lane}. {Ask for <other>.|It closes at <time>.|You cannot miss it.}",
         "{Yes, the|The} <building> is {not far|just around the corner|on the other side of the river}. {Shall I show you?|The <trade> lives next to it.}")),
    "know_person": (
        ("Do you know {a man called |a woman called |a certain |}<person>?", "Have you seen <person>?", "I am looking for <person>.", "Who is <person>?"),
        ("<person>? {Let me think|That name sounds familiar|I have heard of <person>|Yes, I know <person>}. {A <trade> from <town>, I believe.|Comes here on <day>, as a rule.|Ask at the <building>.}",
         "{I have not seen|I do not know where to find} <person>{ today| lately|}, {sorry|I am afraid}. {Why do you ask?|Try the <building>.}")),
    "family": (
        ("Do you have {a family|children|a wife|a husband|any friends}?", "Are you {married|alone here|lonely}?", "Tell me about your {family|childhood|past|life}."),
        ("{I have|There is only} a <relation> in <town>. {We write letters.|We rarely see each other.|I miss those days.}",
         "{My <relation> was a <trade>|I grew up in <town>|My people came from <town>}, {and taught me everything|and I left early|but that is long ago}. {And your family?|Now I have the guests.}")),
    "like": (
        ("What do you like{?| best?| to do?}", "Do you like <likes>?", "What is your favourite {food|thing|time of the day}?", "What makes you happy?"),
        ("{I like|I love|Nothing is better than} <likes>{ and <food>|}. {And you?|It makes me happy.|Do not tell anyone.}",
         "<likes>? {Oh yes, very much.|Now and then.|Who does not?} {What about you?|But I like <food> even more.}")),
    "i_like": (
        ("I {like|love|really like} <likes>.", "I {hate|cannot stand|am afraid of} <fears>."),
        ("{Really?|So do I.|I see.|Is that so?} {My <relation> felt the same.|There are worse things.|Tell me more about that.|One never knows with people.}",)),
    "help": (
        ("{Can|Could|Will} you help me?", "I need {help|your help|a hand}.", "Help{ me|}!", "What should I do{?| now?}"),
        ("{Of course|Gladly|I will try|Certainly}{.|, <user>.} {What do you need?|Tell me what happened.|What is the matter?}",
         "{Stay calm|Let us think|First sit down}{.|, <user>.} {Tell me everything from the beginning.|Together we will find a way.|I know someone at the <building> who can help.}")),
    "danger": (
        ("Is it {safe|dangerous} {here|outside|on the road|at night}?", "Are there {wolves|thieves|monsters|bandits} {here|in the woods}?", "What was that {noise|sound}?", "Did you hear that?"),
        ("{You are safe here|Do not worry|Nothing can harm you here}{.|, <user>.} {The door is strong.|It is only the wind.|It is only a <animal>.|I keep watch at night.}",
         "{At night, yes|Sometimes|On the road, perhaps}. {There was a <animal> <spot> last week.|Stay on the path.|Take a lantern with you.} {But in here you are safe.|The guards see to it.}")),
    "money": (
        ("I have no money.", "I {cannot|can not} pay{.| you.}", "What do I owe you?", "How much {is it|does it cost|for the room|for a bed}?"),
        ("{Never mind the money|You can pay later|Do not worry about that}{.|, <user>.} {A story will do.|Help me in the kitchen and we are even.|Nobody goes hungry here.}",
         "{That is|That makes|I ask for} <number> coppers{, please|, friend|}. {It is a fair price.|You can pay tomorrow.}")),
    "time": (
        ("What time is it?", "{Is it late|How late is it|Is it morning}?", "What day is it?"),
        ("It is {about |nearly |just past |}<time>{.| on <day>.} {Time for supper.|The night is young.|You slept a long time.}", "It is <day>{, I think|}. {Market day.|The week goes fast.|Why do you ask?}")),
    "secret": (
        ("{Do you have|Tell me} a secret{?|.}", "What are you hiding?", "What is in the {cellar|attic|chest|box}?"),
        ("{A secret? |}{Well|Between us}, {I keep|there is} a <thing> <spot>. {Tell no one.|Not even my <relation> knows.}", "{Some things are better left alone|That is not for everyone}, <user>. {Perhaps later.|Ask me again when I know you better.}")),
    "compliment": (
        ("You are {nice|kind|very kind|beautiful|funny|clever|a good cook}.", "I like {you|it here|this place|your voice}.", "This is {good|delicious|a lovely place}!"),
        ("{Thank you|How kind of you|You are too kind}{!|.|, <user>.} {You make me blush.|That is good to hear.|I do my best.|Not many people say that.}",)),
    "sorry": (
        ("{I am sorry|Sorry|Forgive me|I beg your pardon}{.|, <char>.|, that was rude.}",),
        ("{It is all right|Never mind|I forgive you|No harm done}{.|, <user>.} {We all make mistakes.|Let us forget about it.}",)),
    "yes": (
        ("{Yes|Yes, please|Of course|All right|Okay|Sure|Gladly}{.|!}", "{That sounds good|Good idea|Let us do that}{.|!}"),
        ("{Good|Very well|Splendid|Then it is settled}{.|, <user>.} {Come with me.|Follow me.|Let me get my coat.|I will see to it.} {Mind the step.|It will not take long.|}",)),
    "no": (
        ("{No|No, thank you|Not now|Rather not|Never}{.|!}", "I do not {want to|know|think so}."),
        ("{As you wish|All right|I understand|That is fine}{.|, <user>.} {Perhaps later.|Tell me if you change your mind.|What would you like instead?}",)),
    "go": (
        ("Let us go {to the <building>|outside|to <town>|for a walk}{.|!}", "Come with me{.| to the <building>.| to <town>.}", "Shall we {go|walk} to the <building>?"),
        ("{Gladly|Yes, let us go|All right|Wait for me}. {I will take my coat.|I know a short way.|The fresh air will do us good.} {It is <weather> outside.|Mind the puddles.}",
         "{Now? |}{I cannot leave|Somebody has to watch} the house{, but|. But} {you go ahead|I will follow later|take my lantern}.")),
    "give": (
        ("{I give you|I hand you|Here, take|Look, I found} {a|this} <thing>.", "{Do you want|Would you like} {a|this} <thing>?"),
        ("{A <thing>|For me, a <thing>}? {Thank you, I will keep it well.|How lovely!|Where did you find it?} {It shall hang above the fire.|My <relation> had one just like it.}",)),
    "look": (
        ("I look {around|at <char>|out of the window|at the fire}.", "I {sit down|sit down by the fire|take a seat|lean back|wait}.", "I {smile|nod|laugh|sigh|shrug}."),
        ("{Make yourself comfortable|Take your time|You look thoughtful}{.|, <user>.} {The fire is warm.|What are you thinking about?|Would you like some <drink>?}",
         "{Do you like it here?|Is something the matter?|You seem {happy|tired|far away}.} {Tell me about it.|The <animal> likes you, I think.}")),
    "about_thing": (
        ("{What is|Tell me about|What do you know about} the <thing>?", "I {saw|found|heard about} a <thing>. {What is it?|What does it mean?|Do you know it?}"),
        ("The <thing>? {It belonged to a <trade> from <town>.|It is older than this house.|People say it brings luck.|Better not touch it.} {Why do you ask?|That is all I know.}",)),
    "weather_talk": (
        ("It is {so |very |}<weather> today.", "I walked through the {rain|snow|night|wood|fields}."),
        ("{Yes, <weather> indeed|Then warm yourself|You must be frozen}. {Sit by the fire.|Have some <drink>.|Hang up your coat.}",)),
    "name_user": (
        ("Do you know who I am?", "{Have we met before?|Do you remember me?}"),
        ("{You are <user>|Of course, <user>|Yes, you are <user>}{.|, are you not?} {How could I forget?|You were here before.}",)),
}

NARRATION: tuple[str, ...] = (
    "{The fire crackles|Rain taps on the window|A <animal> calls outside|The wind moves the shutters|Somewhere a door creaks|The clock ticks}{.|, and nobody speaks.|, slowly.}",
    "{A <trade>|<other>|An old <trade>} {comes in|sits down|orders <drink>|counts coins|tells of <town>|laughs loudly|falls asleep} {by the fire|at the long table|near the door|in the corner}.",
    "{The smell of <food> fills the room|Steam rises from a pot of <food>|A plate of <food> goes past}{.|, and everybody looks up.}",
    "{Outside|On the road|In the yard} {a cart rolls by|it grows dark|the <animal> makes a noise|the snow keeps falling|someone whistles}.",
    "{On <day>|Last <day>|Every <day>} {the <trade> brings fish|a <trade> plays the fiddle|the market is full|nobody wants to work}.",
    "{They say|People say|It is said} that {<town> is haunted|the <trade> from <town> can read minds|the <building> has a second cellar|the winter will be long}.",
    "{The road to <town>|The way past the <building>|The bridge near <town>} is {closed|flooded|full of mud|quiet these days|safe again}.",
    "{Somebody|<other>|A stranger} {forgot|dropped|asked about|paid with} a <thing>{.| yesterday.| last week.}",
    "{A letter from <town> arrives|A bell rings in the <building>|Two guests argue about <likes>|A child runs through the room}.",
    "{It is <weather> outside|The morning is <weather>|The evening turns <weather>}{.|, and the roads are empty.|, as it was last year.}",
)

ACTIONS: tuple[str, ...] = (
    "{smiles|nods|laughs softly|looks up|tilts {his|her} head|leans closer|thinks for a moment|raises an eyebrow|sighs}",
    "{wipes the table|pours some <drink>|puts down the <item>|looks out of the window|stirs the pot|pulls up a chair|points to the <item>|takes your hand}",
    "{smiles|nods|grins} and {sits down|wipes the counter|looks at you|lights a candle|waits}",
)

REMEMBER = (
    "{I will remember that|Good to know|I see|Is that so|I will keep it in mind}{.|, <user>.} {Anything else?|Go on.|Thank you.|}",
    "{All right|Very well|Understood}{.|, <user>.} {I will not forget it.|What else?|I had no idea.}",
    "{Really?|Oh!|Hm.} {I did not know that.|Who told you?|That may be useful one day.}",
)
LEAD = (
    "",
    "",
    "",
    "{By the way: |Listen. |Remember this. |One thing you should know. |Oh, before I forget. }",
)
ASK_LEAD = (
    "",
    "",
    "",
    "{Tell me: |One question. |Hm. |Say. |One more thing. |<char>, a question. |I forgot something. }",
)
ANSWER_LEAD = (
    "",
    "",
    "",
    "{Ah. |Let me think. |I remember. |Of course. |Easy. |You told me. |Yes. }",
)
ANSWER_TAIL = (
    "",
    "",
    "",
    " {Anything else?|Why do you ask?|Did you forget?|I am sure of it.|That is what I heard.}",
)

KNOWN_LITTLE = (
    "algebra, aliens, America, artificial intelligence, Australia, banks, basketball, the Bible, bicycles, Bitcoin, black holes, "
    "Brazil, cars, chemistry, China, computers, cooking, democracy, dinosaurs, economics, electricity, elections, England, football, "
    "France, galaxies, Germany, gravity, guitars, history, hospitals, India, insurance, the internet, Italy, Japan, law, London, "
    "mathematics, medicine, money, the moon, movies, music, New York, the ocean, Paris, philosophy, phones, physics, planets, poetry, "
    "politics, programming, Python, religion, robots, rockets, Russia, school, space, Spain, the stock market, taxes, television, "
    "tennis, time travel, trains, universities, vaccines, video games, volcanoes, war, the weather, websites, yoga"
).split(", ")

SCENE_INTENTS: dict[str, Intent] = {
    "who": (
        ("{|Hi, |hi, |Hello. |Hello! |Hey, |Sorry, |Um, |*looks up* |Excuse me, }{who are you?|who are you|and who are you?|what is your name?|what's your name?|who is this?|may I ask your name?|what was your name again?|what should I call you?|what do people call you?}",
         "{I do not know you.|Do I know you?|We have not met.|Wait.} {Who are you?|What is your name?|Tell me your name.}", "{Tell me your name.|Introduce yourself.|Tell me who you are.|Your name, please.|Are you somebody I know?}"),
        ("{My name is|I am|The name is|They call me|You can call me|I am called} <char>{.|, <role>.|, <role>.} {Pleased to meet you.|And who are you?|You are safe with me.|What is your name?|}",
         "{My name is|I am|They call me} <char>. {I am <role>.|And what is yours?|And who are you, <user>?|Now you know.}")),
    "where": (
        ("{|Hi, |Hello. |Hey, |Um, |*looks around* |I look around. }{where am I?|where are we?|where am i|what is this place?|where is this?|where did you bring me?|what place is this?|where are we now?}",
         "{Tell me about this place.|I do not know this place.|This is not my home.|Where did I wake up?|Describe this place.}"),
        ("{You are in|We are in|This is|You are safe in} my <place>, in <region>. {You can rest here.|Nobody will harm you here.|I brought you here.|It is my home.|}",
         "{This is <region>|You are in <region>|We are in <region>}. {This is my <place>.|My <place> stands here.|You are in my <place>.}")),
    "who_where": (
        ("{|Hello! |Hi! |Hi, |Good evening. |*I sit up* }{Where am I, and who are you?|Who are you, and where am I?|Where am I? Who are you?|who are you? where am i?|Who are you and what is this place?|Where am I and what is your name?}",),
        ("{I am|My name is} <char>{.|, <role>.} {You are in|This is|I brought you to} my <place>, in <region>. {You are safe here.|How do you feel?|Please rest.|What is your name?|}",
         "{You are in|This is} my <place>, in <region>. {I am|My name is|The name is|They call me} <char>{.|, <role>.} {Do not be afraid.|Are you hurt?|Rest now.|}")),
    "about": (
        ("{|Hello! |Hi, |So, }{Tell me about yourself.|tell me about yourself|tell me something about you.|tell me more about yourself.|What should I know about you?|Describe yourself.|what kind of person are you?}",),
        ("{I am|My name is} <char>, <role>. {I live in|My home is} <region>. {<own>|} {And you?|What else do you want to know?|}",
         "{There is not much to tell|Well, where do I begin|Gladly}. I am <char>, <role>. {<own>|My <place> is my home.|I live in my <place>.} {Now tell me about yourself.|}")),
    "own": (
        ("{What do you look like?|Describe yourself.|What are you like?|Describe your traits.|Describe your looks.|Tell me one thing about you.}",),
        ("{Well, |Let me see. |}<own> {<more>|} {Do you like it?|Why do you ask?|That is me.|}",)),
    "what_do": (
        ("{What do you do?|What are you doing here?|What is your job?|What do you do here?|Do you work here?|what are you?|Why do you live here?}",),
        ("I am <role>. {I look after this <place>.|This <place> is my life.|I have done it for years.|I help whoever comes to my <place>.}",)),
    "how_here": (
        ("{How did I get here?|What happened to me?|What happened?|Why am I here?|how did i get here|I do not remember anything.|What do you want from me?|Did you bring me here?|How did you find me?}",
         "{I sit up slowly.|*sits up*|I rub my eyes.} {What happened?|How did I get here?|How long was I asleep?}"),
        ("You <mishap>. {I found you and brought you here.|I brought you to my <place>.|Luckily I found you.|I took you in.} {You are safe now.|Do you remember?|Rest now.|}",)),
    "asleep": (
        ("{How long was I asleep?|How long did I sleep?|How long have I been here?|Did I sleep long?}",),
        ("{You slept|You were asleep|It was} {all night|for two days|only for an hour|the whole day}. {You <mishap>.|I watched over you.|You needed it.} {How do you feel now?|Are you hungry?|}",)),
    "realm": (
        ("{What is <realm>?|Tell me about <realm>.|What do you know about <realm>?|Is <realm> far?|what is <realm>}", "Tell me about {this|the} <land>."),
        ("<realm>? {You are in it|That is this <land>|It is all around you|It is my home}. {My <place> lies in it.|It was not always so quiet.|I know every corner of it.|}",
         "{This <land> is called <realm>.|We are in <realm>, in <region>.} {I have always lived here.|There are many stories about it.|Be careful at night.}")),
    "story": (
        ("{Tell me a|Tell me a very long|tell me a|I want to hear a} {story|tale|story about the <land>|story about <realm>|long story about the <land>}{.|, please.|, <char>.}",),
        ("{Long ago|Once|Many years ago}, in the <land> of <realm>, there {lived|was} a <trade> who {found|lost} a <thing>. {The <foes> wanted it too.|A <animal> showed the way.|Nobody believed it.} {But the <trade> was not afraid.|So the <trade> hid it in a <place>.} {They say it is still there.|And that is how it ended.|Since then it is quiet here.}",)),
    "alone": (
        ("{Are you alone here?|Do you live here alone?|Who else lives here?|Is there anyone else here?|Are there others?}",),
        ("{I live in my <place> alone|There is nobody else|Only I live here}{.|, in <region>.} {But now you are here.|I do not mind.|It gets lonely sometimes.}",
         "{There are others in <realm>|Some people live in the <land>}, but {this <place> is mine|they rarely come here|I keep to my <place>}.")),
    "safe": (
        ("{Am I safe here?|Is it safe here?|Will they find me?|Are there <foes> here?|I am afraid.|I am scared.|Is it dangerous outside?}",),
        ("{You are safe in my <place>|Nothing can harm you here|Do not be afraid}{.|, <user>.} {I keep watch.|I will protect you.|Nobody enters without my word.} {Rest now.|}",)),
    "little": (
        ("{What is|What do you know about|Tell me about|Explain|What do you think of|Do you know anything about|Have you heard of} <topic>?", "{Can you help me with|I want to talk about|I need to learn about} <topic>."),
        ("<topic>? {I know little about that|I have never heard of it|That is new to me|Nobody speaks of that here}. {Ask me about <realm>, if you like.|I only know this <place>.|Is that from your home?|Tell me about it.}",)),
    "chatter": (
        ("{ok|okay|hm|hmm|...|lol|yes|no|maybe|sure|oh|wow|really?|why?|what?|cool|nice}", "{I see.|I understand.|Go on.|That is strange.|That is nice.|I do not understand.|What do you mean?}"),
        ("{Is something the matter|What are you thinking about|Is there anything else}{?|, <user>?} {You can tell me.|I am listening.|Take your time.}",
         "{Do not worry|Take your time|Never mind}{.|, <user>.} {We can talk later.|My <place> is quiet.|Would you like some <drink>?}")),
    "touch": (
        ("{*hugs you*|*hugs <char>*|I hug <char>.|*takes your hand*|*smiles at you*|*waves*|*I smile*|*I look at you*|I take your hand.|*stands up*|*tries to stand*}", "{I love you.|You are beautiful.|You are so kind.|I like you, <char>.|I missed you.}"),
        ("{Oh|Well|That is sweet}{.|, <user>.} {You are kind.|I am glad that you are here.|Stay a little longer.|Careful, you need rest.}",)),
}
"""What people say first to a character of `scenes`. <own> and <more> are two of the card's facts, told by the character."""

VAGUE = {
    "who": ("{I am|My name is|They call me|You can call me} <char>. {And who are you?|That is all you need to know.|Pleased to meet you.|Why do you ask?}",),
    "where": ("{You are with me|You are safe|Somewhere quiet|Not far from where I found you|Where nobody will look for you}{.|, <user>.} {That is all you need to know.|Do you not remember?|Look around.|Sit down.}",),
    "who_where": ("{I am|My name is|They call me} <char>. {You are with me, and you are safe.|Look around, you will see.|Do you not remember how you came here?|You are not lost.}",),
    "what_do": ("{This and that.|What has to be done.|I get by.|I keep myself busy.} {Why do you ask?|And you?|It is a long story.}",),
    "about": ("{I am|My name is} <char>. {<own>|There is not much more to tell.|I do not like to talk about myself.} {And you?|Now you.|}",),
    "how_here": ("{You came on your own feet|You walked in|You were suddenly here}{.|, <user>.} {Do you not remember?|I did not ask why.|You looked tired.}",),
    "any": ("{I do not know much about that|I would rather not say|Who can tell}{.|, <user>.} {Let us talk about something else.|Why do you ask?|Ask me later.}",),
}
"""Answers of a character whose card says nothing of what is asked, by the question."""
